/* Streams: queues that run as late as the rules allow.
 *
 * A task runs when somebody waits for it, and before it whatever it waits for; nothing else
 * does. So a wait that is missing shows in the data. A queue that has grown too long runs its
 * oldest task, as a driver's launch waits for room in the queue.
 */
#include "driver.h"

struct point end_of(struct stream *stream) { return (struct point){stream, stream->enqueued}; }

bool reached(struct point point) {
  return !point.stream || point.stream->done >= point.number;
}

static void run_head(struct stream *stream) {
  struct task *task = stream->head;
  stream->busy = true;
  for (size_t at = 0; at < task->wait_count; at++) run_until(task->waits[at]);
  if (task->work) run_work(task->work);
  stream->head = task->next;
  if (!stream->head) stream->tail = NULL;
  stream->done = task->number;
  stream->busy = false;
  drop_work(task->work);
  free(task);
  tell_progress();
}

/* Two threads may wait for one stream: one runs its tasks, the other waits for that. No circle
 * of waits can come up, since a task only waits for tasks that were enqueued before it. A thread
 * that runs a task when Python ends goes with it, and nobody must wait for it. */
void run_until(struct point point) {
  while (!reached(point)) {
    if (!point.stream->busy) run_head(point.stream);
    else if (python_lives()) wait_for_progress();
    else {
      point.stream->context->fault = CUDA_ERROR_DEINITIALIZED;
      return;
    }
  }
}

void run_context(struct context *context) {
  for (struct stream *stream = context->streams; stream; stream = stream->next)
    run_until(end_of(stream));
  release_pools();
}

CUresult synchronise(struct stream *stream) {
  run_until(end_of(stream));
  release_pools();
  return stream->context->fault;
}

void wait_at_end(struct stream *stream, struct point point) {
  if (reached(point) || point.stream == stream) return;
  for (size_t at = 0; at < stream->wait_count; at++)
    if (stream->waits[at].stream == point.stream) {
      if (stream->waits[at].number < point.number) stream->waits[at] = point;
      return;
    }
  if (stream->wait_count == stream->wait_room) {
    stream->wait_room = stream->wait_room ? 2 * stream->wait_room : 4;
    stream->waits = realloc(stream->waits, stream->wait_room * sizeof *stream->waits);
  }
  stream->waits[stream->wait_count++] = point;
}

/* The legacy stream waits for all blocking streams of its context, and they for it. */
static void wait_for_legacy(struct stream *stream) {
  struct context *context = stream->context;
  if (stream->flags & CU_STREAM_NON_BLOCKING) return;
  if (stream != context->legacy) {
    wait_at_end(stream, end_of(context->legacy));
    return;
  }
  for (struct stream *other = context->streams; other; other = other->next)
    if (!(other->flags & CU_STREAM_NON_BLOCKING)) wait_at_end(stream, end_of(other));
}

static void append(struct stream *stream, struct work *work) {
  size_t count = stream->wait_count;
  struct task *task = malloc(sizeof *task + count * sizeof *task->waits);
  *task = (struct task){.number = ++stream->enqueued, .work = work, .wait_count = count};
  if (count) memcpy(task->waits, stream->waits, count * sizeof *task->waits);
  stream->wait_count = 0;
  if (stream->tail) stream->tail->next = task;
  else stream->head = task;
  stream->tail = task;
  stream->queries = 0;
}

CUresult enqueue(struct stream *stream, struct work *work) {
  if (stream->capture) {
    capture_work(stream, work);
    drop_work(work);
    return CUDA_SUCCESS;
  }
  wait_for_legacy(stream);
  append(stream, work);
  if (stream->enqueued - stream->done > LONGEST_QUEUE)
    run_until((struct point){stream, stream->enqueued - LONGEST_QUEUE});
  bool waits = options.blocking && (work->kind == LAUNCH || work->kind == PROGRAM);
  if (waits || options.eager) synchronise(stream);
  return waits ? stream->context->fault : CUDA_SUCCESS;
}

void forget_tasks(void) {
  for (struct context *context = contexts; context; context = context->next) {
    if (!context->fault)
      context->fault = CUDA_ERROR_UNKNOWN; /* memory comes and goes, nothing else */
    run_context(context);
  }
}

struct stream *new_stream(struct context *context, unsigned flags, int priority) {
  static unsigned long long next_id = 1;
  struct stream *stream = NULL;
  for (struct stream *old = context->streams; old && !stream; old = old->next)
    if (old->destroyed && old->done == old->enqueued && !old->busy) stream = old;
  if (!stream) {
    stream = calloc(1, sizeof *stream);
    stream->next = context->streams;
    context->streams = stream;
  }
  stream->context = context;
  stream->flags = flags;
  stream->priority = priority;
  stream->destroyed = false;
  stream->wait_count = 0;
  stream->id = next_id++;
  add_handle(stream, STREAM);
  return stream;
}

static __thread struct { /* the per-thread streams, by context */
  struct stream *streams[MOST_DEVICES];
  unsigned long long contexts[MOST_DEVICES];
} own;

static struct stream *thread_stream(struct context *context) {
  int at = context->device;
  if (!own.streams[at] || own.contexts[at] != context->id) {
    own.streams[at] = new_stream(context, CU_STREAM_DEFAULT, 0);
    own.contexts[at] = context->id;
  }
  return own.streams[at];
}

CUresult find_stream(CUstream handle, struct context *context, struct stream **stream) {
  if (!handle || handle == CU_STREAM_LEGACY) *stream = context->legacy;
  else if (handle == CU_STREAM_PER_THREAD) *stream = thread_stream(context);
  else if (is_handle(handle, STREAM)) *stream = (struct stream *)handle;
  else return CUDA_ERROR_INVALID_HANDLE;
  if ((*stream)->context->fault) return (*stream)->context->fault;
  return *stream == context->legacy ? refuse_legacy_in_capture(context) : CUDA_SUCCESS;
}

/* ---- the driver's functions ---- */
CUresult CUDAAPI cuStreamCreateWithPriority(CUstream *out, unsigned int flags, int priority) {
  ENTER_CONTEXT(context);
  if (!out || flags & ~(unsigned)CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  priority = priority > 0 ? 0 : priority < -5 ? -5 : priority;
  *out = (CUstream)new_stream(context, flags, priority);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamCreate(CUstream *out, unsigned int flags) {
  ENTER_CONTEXT(context);
  if (!out || flags & ~(unsigned)CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  *out = (CUstream)new_stream(context, flags, 0);
  return CUDA_SUCCESS;
}

/* Work that is still in the queue runs all the same. */
CUresult CUDAAPI cuStreamDestroy(CUstream handle) {
  ENTER;
  if (!is_handle(handle, STREAM)) return CUDA_ERROR_INVALID_HANDLE;
  struct stream *stream = (struct stream *)handle;
  leave_capture(stream);
  drop_handle(stream);
  stream->destroyed = true;
  return CUDA_SUCCESS;
}

#define FIND_STREAM(handle, stream) \
  ENTER_CONTEXT(context);           \
  struct stream *stream;            \
  TRY(find_stream(handle, context, &stream))

static CUresult refuse_if_capturing(struct stream *stream) {
  if (!stream->capture) return CUDA_SUCCESS;
  invalidate(stream);
  return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult CUDAAPI cuStreamSynchronize(CUstream handle) {
  FIND_STREAM(handle, stream);
  TRY(refuse_if_capturing(stream));
  if (stream == context->legacy)
    for (struct stream *other = context->streams; other; other = other->next)
      if (!(other->flags & CU_STREAM_NON_BLOCKING)) run_until(end_of(other));
  return synchronise(stream);
}

/* Whoever asks often enough gets there in the end. */
CUresult CUDAAPI cuStreamQuery(CUstream handle) {
  FIND_STREAM(handle, stream);
  TRY(refuse_if_capturing(stream));
  if (reached(end_of(stream))) return CUDA_SUCCESS;
  if (++stream->queries <= QUERIES_UNTIL_PROGRESS) return CUDA_ERROR_NOT_READY;
  return synchronise(stream);
}

CUresult CUDAAPI cuStreamGetFlags(CUstream handle, unsigned int *flags) {
  FIND_STREAM(handle, stream);
  *flags = stream->flags;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetPriority(CUstream handle, int *priority) {
  FIND_STREAM(handle, stream);
  *priority = stream->priority;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetId(CUstream handle, unsigned long long *id) {
  FIND_STREAM(handle, stream);
  *id = stream->id;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetCtx(CUstream handle, CUcontext *out) {
  FIND_STREAM(handle, stream);
  *out = (CUcontext)stream->context;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetCtx_v2(CUstream handle, CUcontext *out, CUgreenCtx *green) {
  FIND_STREAM(handle, stream);
  *out = (CUcontext)stream->context;
  if (green) *green = NULL;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetDevice(CUstream handle, CUdevice *device) {
  FIND_STREAM(handle, stream);
  *device = stream->context->device;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned int flags) {
  FIND_STREAM(handle, stream);
  struct event *event = find_event(event_handle);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  if (flags & ~1u) return CUDA_ERROR_INVALID_VALUE;
  if (stream->capture && flags & CU_EVENT_WAIT_EXTERNAL) { /* a node that waits */
    struct work *work = new_work(WAIT, stream->context, 0);
    work->event = keep_event(event);
    return enqueue(stream, work);
  }
  if (event->captured || stream->capture) return capture_wait(stream, event);
  if (!event->recorded || reached(event->point)) return CUDA_SUCCESS;
  wait_at_end(stream, event->point);
  append(stream, NULL); /* whoever waits for the stream waits for the event */
  if (options.eager) synchronise(stream);
  return CUDA_SUCCESS;
}

static CUresult enqueue_host_call(struct stream *stream, CUhostFn function,
                                  CUstreamCallback callback, void *data) {
  struct work *work = new_work(HOST_CALL, stream->context, 0);
  work->host.function = function;
  work->host.callback = callback;
  work->host.stream = (CUstream)stream;
  work->host.data = data;
  return enqueue(stream, work);
}

CUresult CUDAAPI cuLaunchHostFunc(CUstream handle, CUhostFn function, void *data) {
  FIND_STREAM(handle, stream);
  if (!function) return CUDA_ERROR_INVALID_VALUE;
  return enqueue_host_call(stream, function, NULL, data);
}

CUresult CUDAAPI cuStreamAddCallback(CUstream handle, CUstreamCallback callback, void *data,
                                     unsigned int flags) {
  FIND_STREAM(handle, stream);
  if (!callback || flags) return CUDA_ERROR_INVALID_VALUE;
  TRY(refuse_if_capturing(stream));
  return enqueue_host_call(stream, NULL, callback, data);
}
