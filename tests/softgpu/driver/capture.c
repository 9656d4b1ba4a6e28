/* Stream capture: what is enqueued becomes nodes of a graph, with the order that streams and
 * events give. */
#include <pthread.h>
#include "graphs.h"

struct capture {
  unsigned long long id;
  struct graph *graph;
  bool own_graph; /* made for the capture, not given to it */
  size_t first_node;
  struct stream *origin;
  CUstreamCaptureMode mode;
  pthread_t thread;
  bool invalid;
  struct capture *next;
};

static struct capture *captures;
static __thread CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

static struct capture *capture_by_id(unsigned long long id) {
  struct capture *capture = captures;
  while (capture && capture->id != id) capture = capture->next;
  return capture;
}

void invalidate(struct stream *stream) {
  if (stream->capture) stream->capture->invalid = true;
}

/* Which captures forbid this thread what might disturb them. */
static bool forbids(const struct capture *capture) {
  if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED || capture->invalid) return false;
  if (pthread_equal(capture->thread, pthread_self()))
    return capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
  return thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
         capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
}

CUresult refuse_in_capture(void) {
  CUresult error = CUDA_SUCCESS;
  for (struct capture *capture = captures; capture; capture = capture->next)
    if (forbids(capture)) {
      capture->invalid = true;
      error = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
  return error;
}

CUresult refuse_legacy_in_capture(struct context *context) {
  if (!captures) return CUDA_SUCCESS;
  for (struct stream *stream = context->streams; stream; stream = stream->next)
    if (stream->capture && !(stream->flags & CU_STREAM_NON_BLOCKING)) {
      invalidate(stream);
      return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
  return CUDA_SUCCESS;
}

/* ---- what the next node of a stream depends on ---- */
static void set_after(struct stream *stream, struct node *const *nodes, size_t count) {
  struct node **copy = malloc((count + 1) * sizeof *copy);
  if (count) memcpy(copy, nodes, count * sizeof *copy);
  free(stream->capture_after);
  stream->capture_after = copy;
  stream->capture_after_count = count;
}

static void add_after(struct stream *stream, struct node *const *nodes, size_t count) {
  size_t have = stream->capture_after_count;
  struct node **all = realloc(stream->capture_after, (have + count + 1) * sizeof *all);
  for (size_t at = 0; at < count; at++) {
    bool known = false;
    for (size_t n = 0; n < have; n++) known |= all[n] == nodes[at];
    if (!known) all[have++] = nodes[at];
  }
  stream->capture_after = all;
  stream->capture_after_count = have;
}

void capture_work(struct stream *stream, struct work *work) {
  struct node *node = add_node(stream->capture->graph, type_of(work), keep_work(work),
                               stream->capture_after, stream->capture_after_count);
  set_after(stream, &node, 1);
}

void capture_record(struct stream *stream, struct event *event) {
  size_t count = stream->capture_after_count;
  free(event->after);
  event->after = malloc((count + 1) * sizeof *event->after);
  if (count) memcpy(event->after, stream->capture_after, count * sizeof *event->after);
  event->after_count = count;
  event->captured = stream->capture->id;
  event->recorded = true;
  event->point = (struct point){0};
}

CUresult capture_wait(struct stream *stream, struct event *event) {
  struct capture *capture = capture_by_id(event->captured);
  if (stream->capture && !event->recorded) return CUDA_SUCCESS;
  if (stream->capture && !capture) {
    invalidate(stream);
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  if (!capture) return CUDA_ERROR_CAPTURED_EVENT; /* that capture is over */
  if (stream->capture && stream->capture != capture) {
    stream->capture->invalid = capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  }
  if (stream == stream->context->legacy) {
    capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  }
  if (stream->capture) {
    add_after(stream, event->after, event->after_count);
  } else {
    stream->capture = capture;
    set_after(stream, event->after, event->after_count);
  }
  return CUDA_SUCCESS;
}

/* ---- begin and end ---- */
static CUresult begin(CUstream handle, struct graph *graph, const CUgraphNode *after,
                      size_t count, CUstreamCaptureMode mode, struct context *context) {
  static unsigned long long next_id = 1;
  struct stream *stream;
  TRY(find_stream(handle, context, &stream));
  if ((unsigned)mode > CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
  if (stream == context->legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  struct capture *capture = malloc(sizeof *capture);
  *capture = (struct capture){.id = next_id++,
                              .graph = graph ? graph : new_graph(),
                              .own_graph = !graph,
                              .origin = stream,
                              .mode = mode,
                              .thread = pthread_self(),
                              .next = captures};
  capture->first_node = capture->graph->count;
  captures = capture;
  stream->capture = capture;
  set_after(stream, (struct node *const *)after, count);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
  ENTER_CONTEXT(context);
  return begin(stream, NULL, NULL, 0, mode, context);
}

CUresult CUDAAPI cuStreamBeginCaptureToGraph(CUstream stream, CUgraph handle,
                                             const CUgraphNode *after,
                                             const CUgraphEdgeData *edges, size_t count,
                                             CUstreamCaptureMode mode) {
  ENTER_CONTEXT(context);
  (void)edges;
  struct graph *graph = find_graph(handle);
  if (!graph) return CUDA_ERROR_INVALID_VALUE;
  for (size_t at = 0; at < count; at++)
    if (!find_node(after[at]) || find_node(after[at])->graph != graph)
      return CUDA_ERROR_INVALID_VALUE;
  return begin(stream, graph, after, count, mode, context);
}

/* Whether some node that the capture made is before nothing, and its stream was not joined
 * again. */
static bool has_loose_end(const struct capture *capture) {
  const struct graph *graph = capture->graph;
  const struct stream *origin = capture->origin;
  for (size_t at = capture->first_node; at < graph->count; at++) {
    bool ends = true, joined = false;
    for (size_t later = at + 1; later < graph->count && ends; later++)
      for (size_t n = 0; n < graph->nodes[later]->from_count; n++)
        if (graph->nodes[later]->from[n] == graph->nodes[at]) ends = false;
    for (size_t n = 0; n < origin->capture_after_count; n++)
      joined |= origin->capture_after[n] == graph->nodes[at];
    if (ends && !joined) return true;
  }
  return false;
}

static void end(struct capture *capture) {
  for (struct context *context = contexts; context; context = context->next)
    for (struct stream *stream = context->streams; stream; stream = stream->next)
      if (stream->capture == capture) {
        stream->capture = NULL;
        set_after(stream, NULL, 0);
      }
  struct capture **at = &captures;
  while (*at != capture) at = &(*at)->next;
  *at = capture->next;
  free(capture);
}

static void give_up(struct capture *capture) {
  if (capture->own_graph) drop_graph(capture->graph);
  end(capture);
}

void forget_captures(void) {
  while (captures) give_up(captures);
}

/* A stream may go when it was joined again; without the one it began on a capture is over. */
void leave_capture(struct stream *stream) {
  if (!stream->capture) return;
  if (stream->capture->origin == stream) {
    give_up(stream->capture);
    return;
  }
  stream->capture = NULL;
  set_after(stream, NULL, 0);
}

CUresult CUDAAPI cuStreamEndCapture(CUstream handle, CUgraph *out) {
  ENTER_CONTEXT(context);
  struct stream *stream;
  TRY(find_stream(handle, context, &stream));
  struct capture *capture = stream->capture;
  if (!out) return CUDA_ERROR_INVALID_VALUE;
  if (!capture) return CUDA_ERROR_ILLEGAL_STATE;
  bool here = pthread_equal(capture->thread, pthread_self());
  if (!here && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED)
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  CUresult error = capture->invalid            ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                   : capture->origin != stream ? CUDA_ERROR_STREAM_CAPTURE_UNMATCHED
                   : has_loose_end(capture)    ? CUDA_ERROR_STREAM_CAPTURE_UNJOINED
                                               : CUDA_SUCCESS;
  *out = error ? NULL : (CUgraph)capture->graph;
  if (error && capture->own_graph) drop_graph(capture->graph);
  end(capture);
  return error;
}

/* ---- what can be asked ---- */
static CUstreamCaptureStatus status_of(const struct stream *stream) {
  if (!stream->capture) return CU_STREAM_CAPTURE_STATUS_NONE;
  return stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                  : CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

CUresult CUDAAPI cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
  ENTER_CONTEXT(context);
  struct stream *stream;
  TRY(find_stream(handle, context, &stream));
  *status = status_of(stream);
  return CUDA_SUCCESS;
}

static CUresult get_info(CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id,
                         CUgraph *graph, const CUgraphNode **after, size_t *count,
                         struct context *context) {
  struct stream *stream;
  TRY(find_stream(handle, context, &stream));
  *status = status_of(stream);
  if (*status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return CUDA_SUCCESS;
  if (id) *id = stream->capture->id;
  if (graph) *graph = (CUgraph)stream->capture->graph;
  if (after) *after = (const CUgraphNode *)stream->capture_after;
  if (count) *count = stream->capture_after_count;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetCaptureInfo(CUstream stream, CUstreamCaptureStatus *status,
                                        cuuint64_t *id, CUgraph *graph,
                                        const CUgraphNode **after,
                                        const CUgraphEdgeData **edges, size_t *count) {
  ENTER_CONTEXT(context);
  if (edges) *edges = NULL; /* none of them says more than "after" */
  return get_info(stream, status, id, graph, after, count, context);
}

CUresult cuStreamGetCaptureInfo_v2(CUstream stream, CUstreamCaptureStatus *status,
                                   cuuint64_t *id, CUgraph *graph, const CUgraphNode **after,
                                   size_t *count) {
  ENTER_CONTEXT(context);
  return get_info(stream, status, id, graph, after, count, context);
}

CUresult CUDAAPI cuStreamUpdateCaptureDependencies(CUstream handle, CUgraphNode *nodes,
                                                   const CUgraphEdgeData *edges, size_t count,
                                                   unsigned int flags) {
  ENTER_CONTEXT(context);
  (void)edges;
  struct stream *stream;
  TRY(find_stream(handle, context, &stream));
  if (!stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  for (size_t at = 0; at < count; at++)
    if (!find_node(nodes[at]) || find_node(nodes[at])->graph != stream->capture->graph)
      return CUDA_ERROR_INVALID_VALUE;
  if (flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES)
    set_after(stream, (struct node **)nodes, count);
  else if (flags == CU_STREAM_ADD_CAPTURE_DEPENDENCIES)
    add_after(stream, (struct node **)nodes, count);
  else return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
  ENTER;
  if (!mode || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
    return CUDA_ERROR_INVALID_VALUE;
  CUstreamCaptureMode old = thread_mode;
  thread_mode = *mode;
  *mode = old;
  return CUDA_SUCCESS;
}
