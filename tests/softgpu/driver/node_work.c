/* The driver's descriptions of nodes become work: what a queue holds, too. */
#include "graphs.h"

static CUresult context_for(CUcontext handle, struct context **context) {
  *context = handle ? context_of(handle) : current_context();
  return check_context(*context);
}

CUresult kernel_work(const CUDA_KERNEL_NODE_PARAMS *params, struct work **work) {
  struct context *context;
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  struct kernel *kernel =
      find_kernel(params->func ? (void *)params->func : (void *)params->kern);
  TRY(context_for(params->func ? NULL : params->ctx, &context));
  if (!kernel) return CUDA_ERROR_INVALID_VALUE;
  const struct shape shape = {{params->gridDimX, params->gridDimY, params->gridDimZ,
                               params->blockDimX, params->blockDimY, params->blockDimZ},
                              params->sharedMemBytes};
  return make_launch(kernel, context, &shape, params->kernelParams, params->extra, work);
}

CUresult copy_work(const CUDA_MEMCPY3D *params, CUcontext handle, struct work **work) {
  struct context *context;
  TRY(context_for(handle, &context));
  return params ? make_copy(params, context, work) : CUDA_ERROR_INVALID_VALUE;
}

CUresult set_work(const CUDA_MEMSET_NODE_PARAMS *params, CUcontext handle,
                  struct work **work) {
  struct context *context;
  TRY(context_for(handle, &context));
  return params ? make_set(params, context, work) : CUDA_ERROR_INVALID_VALUE;
}

CUresult host_work(CUhostFn function, void *data, struct work **work) {
  struct context *context = current_context();
  TRY(check_context(context));
  if (!function) return CUDA_ERROR_INVALID_VALUE;
  *work = new_work(HOST_CALL, context, 0);
  (*work)->host.function = function;
  (*work)->host.data = data;
  return CUDA_SUCCESS;
}

CUresult event_work(enum work_kind kind, CUevent handle, struct work **work) {
  struct event *event = find_event(handle);
  if (!event) return CUDA_ERROR_INVALID_VALUE;
  *work = new_work(kind, event->context, 0);
  (*work)->event = event;
  event->references++;
  return CUDA_SUCCESS;
}

CUresult allocate_work(const CUmemPoolProps *props, size_t size, CUdeviceptr *address,
                       struct work **work) {
  struct context *context = current_context();
  TRY(check_context(context));
  if (!size || props->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
    return CUDA_ERROR_INVALID_VALUE;
  TRY(check_device(props->location.id));
  struct block *block = reserve(props->location.id, size, OF_GRAPH, NULL);
  if (!block) return CUDA_ERROR_OUT_OF_MEMORY;
  block->context = context;
  *work = new_work(ALLOCATE, context, 0);
  (*work)->memory.address = *address = block->start;
  (*work)->memory.size = size;
  (*work)->memory.of_graph = true;
  return CUDA_SUCCESS;
}

CUresult free_work(CUdeviceptr address, struct work **work) {
  struct context *context = current_context();
  struct block *block = block_at(address);
  TRY(check_context(context));
  if (!block || block->start != address || block->origin != OF_GRAPH)
    return CUDA_ERROR_INVALID_VALUE;
  *work = new_work(FREE, context, 0);
  (*work)->memory.address = address;
  (*work)->memory.size = block->size;
  (*work)->memory.of_graph = true;
  return CUDA_SUCCESS;
}

/* The general description. Child graphs have no work, and conditions cannot be run here. */
CUresult work_of(CUgraphNodeParams *params, struct work **work) {
  switch ((int)params->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      return kernel_work((const CUDA_KERNEL_NODE_PARAMS *)&params->kernel, work);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      return copy_work(&params->memcpy.copyParams, params->memcpy.copyCtx, work);
    case CU_GRAPH_NODE_TYPE_MEMSET:
      return set_work((const CUDA_MEMSET_NODE_PARAMS *)&params->memset, params->memset.ctx,
                      work);
    case CU_GRAPH_NODE_TYPE_HOST:
      return host_work(params->host.fn, params->host.userData, work);
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      return event_work(RECORD, params->eventRecord.event, work);
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT: return event_work(WAIT, params->eventWait.event, work);
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
      return allocate_work(&params->alloc.poolProps, params->alloc.bytesize,
                           &params->alloc.dptr, work);
    case CU_GRAPH_NODE_TYPE_MEM_FREE: return free_work(params->free.dptr, work);
    case CU_GRAPH_NODE_TYPE_EMPTY:
      TRY(check_context(current_context()));
      *work = new_work(NOTHING, current_context(), 0);
      return CUDA_SUCCESS;
    default:
      report("nodes of type %d are not run by the software GPU", params->type);
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}
