/* What nodes do, asked of them. */
#include "graphs.h"

struct node *node_of_type(CUgraphNode handle, CUgraphNodeType type) {
  struct node *node = find_node(handle);
  return node && node->type == type ? node : NULL;
}

static void kernel_params(const struct work *work, CUDA_KERNEL_NODE_PARAMS *params) {
  const uint32_t *d = work->launch.dims;
  bool library = !work->launch.kernel->module->context;
  *params = (CUDA_KERNEL_NODE_PARAMS){
      .func = library ? NULL : (CUfunction)work->launch.kernel,
      .gridDimX = d[0],
      .gridDimY = d[1],
      .gridDimZ = d[2],
      .blockDimX = d[3],
      .blockDimY = d[4],
      .blockDimZ = d[5],
      .sharedMemBytes = work->launch.shared,
      .kernelParams = work->launch.params,
      .kern = library ? (CUkernel)work->launch.kernel : NULL,
      .ctx = library ? (CUcontext)work->context : NULL,
  };
}

static void set_params(const struct work *work, CUDA_MEMSET_NODE_PARAMS *params) {
  *params = (CUDA_MEMSET_NODE_PARAMS){work->set.address, work->set.pitch, work->set.value,
                                      work->set.element, work->set.width, work->set.height};
}

CUresult CUDAAPI cuGraphKernelNodeGetParams(CUgraphNode handle,
                                            CUDA_KERNEL_NODE_PARAMS *params) {
  ENTER;
  struct node *node = node_of_type(handle, CU_GRAPH_NODE_TYPE_KERNEL);
  if (!node || !params) return CUDA_ERROR_INVALID_VALUE;
  kernel_params(node->work, params);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphMemcpyNodeGetParams(CUgraphNode handle, CUDA_MEMCPY3D *params) {
  ENTER;
  struct node *node = node_of_type(handle, CU_GRAPH_NODE_TYPE_MEMCPY);
  if (!node || !params || node->work->kind != COPY) return CUDA_ERROR_INVALID_VALUE;
  copy_params(node->work, params);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphMemsetNodeGetParams(CUgraphNode handle,
                                            CUDA_MEMSET_NODE_PARAMS *params) {
  ENTER;
  struct node *node = node_of_type(handle, CU_GRAPH_NODE_TYPE_MEMSET);
  if (!node || !params || node->work->kind != SET) return CUDA_ERROR_INVALID_VALUE;
  set_params(node->work, params);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphHostNodeGetParams(CUgraphNode handle, CUDA_HOST_NODE_PARAMS *params) {
  ENTER;
  struct node *node = node_of_type(handle, CU_GRAPH_NODE_TYPE_HOST);
  if (!node || !params) return CUDA_ERROR_INVALID_VALUE;
  params->fn = node->work->host.function;
  params->userData = node->work->host.data;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphChildGraphNodeGetGraph(CUgraphNode handle, CUgraph *graph) {
  ENTER;
  struct node *node = node_of_type(handle, CU_GRAPH_NODE_TYPE_GRAPH);
  if (!node || !graph) return CUDA_ERROR_INVALID_VALUE;
  *graph = (CUgraph)node->child;
  return node->child ? CUDA_SUCCESS
                     : CUDA_ERROR_NOT_SUPPORTED; /* a captured launch has none */
}

static CUresult get_event(CUgraphNode handle, CUgraphNodeType type, CUevent *event) {
  struct node *node = node_of_type(handle, type);
  if (!node || !event) return CUDA_ERROR_INVALID_VALUE;
  *event = (CUevent)node->work->event;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphEventRecordNodeGetEvent(CUgraphNode handle, CUevent *event) {
  ENTER;
  return get_event(handle, CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);
}

CUresult CUDAAPI cuGraphEventWaitNodeGetEvent(CUgraphNode handle, CUevent *event) {
  ENTER;
  return get_event(handle, CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);
}

CUresult CUDAAPI cuGraphMemAllocNodeGetParams(CUgraphNode handle,
                                              CUDA_MEM_ALLOC_NODE_PARAMS *params) {
  ENTER;
  struct node *node = node_of_type(handle, CU_GRAPH_NODE_TYPE_MEM_ALLOC);
  if (!node || !params) return CUDA_ERROR_INVALID_VALUE;
  memset(params, 0, sizeof *params);
  params->poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  params->poolProps.location = (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE,
                                               .id = share_of(node->work->memory.address)};
  params->bytesize = node->work->memory.size;
  params->dptr = node->work->memory.address;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphMemFreeNodeGetParams(CUgraphNode handle, CUdeviceptr *address) {
  ENTER;
  struct node *node = node_of_type(handle, CU_GRAPH_NODE_TYPE_MEM_FREE);
  if (!node || !address) return CUDA_ERROR_INVALID_VALUE;
  *address = node->work->memory.address;
  return CUDA_SUCCESS;
}

CUresult cuGraphNodeGetParams(CUgraphNode handle, CUgraphNodeParams *params) {
  ENTER;
  struct node *node = find_node(handle);
  if (!node || !params) return CUDA_ERROR_INVALID_VALUE;
  memset(params, 0, sizeof *params);
  params->type = node->type;
  struct work *work = node->work;
  switch ((int)node->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      kernel_params(work, (CUDA_KERNEL_NODE_PARAMS *)&params->kernel);
      break;
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      if (work->kind == COPY) copy_params(work, &params->memcpy.copyParams);
      break;
    case CU_GRAPH_NODE_TYPE_MEMSET:
      set_params(work, (CUDA_MEMSET_NODE_PARAMS *)&params->memset);
      break;
    case CU_GRAPH_NODE_TYPE_HOST:
      params->host.fn = work->host.function;
      params->host.userData = work->host.data;
      break;
    case CU_GRAPH_NODE_TYPE_GRAPH: params->graph.graph = (CUgraph)node->child; break;
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      params->eventRecord.event = (CUevent)work->event;
      break;
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT: params->eventWait.event = (CUevent)work->event; break;
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
      params->alloc.bytesize = work->memory.size;
      params->alloc.dptr = work->memory.address;
      break;
    case CU_GRAPH_NODE_TYPE_MEM_FREE: params->free.dptr = work->memory.address; break;
  }
  return CUDA_SUCCESS;
}

/* ---- memory of graphs ---- */
CUresult CUDAAPI cuDeviceGraphMemTrim(CUdevice device) {
  ENTER;
  return check_device(device);
}
