/* Events: marks in queues, with the time at which they were reached. */
#include "driver.h"

struct event *keep_event(struct event *event) {
  event->references++;
  return event;
}

void drop_event(struct event *event) {
  if (--event->references) return;
  free(event->after);
  free(event);
}

struct event *find_event(CUevent handle) {
  return is_handle(handle, EVENT) ? (struct event *)handle : NULL;
}

void record_event(struct event *event, struct stream *stream, struct point point) {
  event->recorded = true;
  event->captured = 0;
  event->context = stream->context;
  event->point = point;
  event->queries = 0;
}

CUresult CUDAAPI cuEventCreate(CUevent *out, unsigned int flags) {
  ENTER_CONTEXT(context);
  if (!out || flags & ~7u) return CUDA_ERROR_INVALID_VALUE;
  struct event *event = calloc(1, sizeof *event);
  *event = (struct event){.flags = flags, .references = 1, .context = context};
  add_handle(event, EVENT);
  *out = (CUevent)event;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventDestroy(CUevent handle) {
  ENTER;
  struct event *event = find_event(handle);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  drop_handle(event);
  drop_event(event);
  return CUDA_SUCCESS;
}

static CUresult record(CUevent handle, CUstream stream_handle, struct context *context,
                       unsigned flags) {
  struct stream *stream;
  struct event *event = find_event(handle);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  TRY(find_stream(stream_handle, context, &stream));
  if (event->context != stream->context) return CUDA_ERROR_INVALID_HANDLE;
  bool outside = flags & CU_EVENT_RECORD_EXTERNAL; /* of the graph: a node of its own */
  if (stream->capture && !outside) {
    capture_record(stream, event);
    return CUDA_SUCCESS;
  }
  struct work *work = new_work(RECORD, stream->context, 0);
  work->event = keep_event(event);
  bool captured = stream->capture;
  TRY(enqueue(stream, work));
  if (!captured) record_event(event, stream, end_of(stream));
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecord(CUevent event, CUstream stream) {
  ENTER_CONTEXT(context);
  return record(event, stream, context, 0);
}

CUresult CUDAAPI cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned int flags) {
  ENTER_CONTEXT(context);
  return flags & ~1u ? CUDA_ERROR_INVALID_VALUE : record(event, stream, context, flags);
}

CUresult CUDAAPI cuEventSynchronize(CUevent handle) {
  ENTER_CONTEXT(context);
  struct event *event = find_event(handle);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  if (event->captured) return CUDA_ERROR_CAPTURED_EVENT;
  run_until(event->point);
  return event->context->fault;
}

CUresult CUDAAPI cuEventQuery(CUevent handle) {
  ENTER_CONTEXT(context);
  struct event *event = find_event(handle);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  if (event->captured) return CUDA_ERROR_CAPTURED_EVENT;
  if (reached(event->point)) return CUDA_SUCCESS;
  if (++event->queries <= QUERIES_UNTIL_PROGRESS) return CUDA_ERROR_NOT_READY;
  run_until(event->point);
  return event->context->fault;
}

CUresult CUDAAPI cuEventElapsedTime(float *milliseconds, CUevent first, CUevent second) {
  ENTER_CONTEXT(context);
  struct event *start = find_event(first), *stop = find_event(second);
  if (!start || !stop || !start->recorded || !stop->recorded) return CUDA_ERROR_INVALID_HANDLE;
  if ((start->flags | stop->flags) & CU_EVENT_DISABLE_TIMING) return CUDA_ERROR_INVALID_HANDLE;
  if (!reached(start->point) || !reached(stop->point)) return CUDA_ERROR_NOT_READY;
  *milliseconds = (float)(1e3 * (stop->seconds - start->seconds));
  return CUDA_SUCCESS;
}
