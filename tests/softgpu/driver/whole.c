/* Events of a whole context: they are reached when all is done that its streams hold now. */
#include "driver.h"

CUresult CUDAAPI cuCtxRecordEvent(CUcontext handle, CUevent event_handle) {
  ENTER;
  struct context *context = context_of(handle);
  TRY(check_context(context));
  struct event *event = find_event(event_handle);
  if (!event || event->context != context) return CUDA_ERROR_INVALID_HANDLE;
  TRY(refuse_in_capture());
  /* A stream of its own that waits for the others; its queue runs although it is gone. */
  struct stream *whole = new_stream(context, CU_STREAM_NON_BLOCKING, 0);
  for (struct stream *other = context->streams; other; other = other->next)
    if (other != whole) wait_at_end(whole, end_of(other));
  struct work *work = new_work(RECORD, context, 0);
  work->event = event;
  event->references++;
  CUresult error = enqueue(whole, work);
  if (!error) record_event(event, whole, end_of(whole));
  drop_handle(whole);
  whole->destroyed = true;
  return error;
}
