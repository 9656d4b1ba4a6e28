/* Nodes of each type: adding them, asking what they do, changing that in a graph or an
 * executable one. */
#include "driver.h"

CUresult replace_step(CUgraphExec exec, const struct node *node,
                      struct work *work); /* exec.c */

/* ---- the driver's descriptions become work ---- */
static CUresult context_for(CUcontext handle, struct context **context) {
  *context = handle ? context_of(handle) : current_context();
  return check_context(*context);
}

static CUresult kernel_work(const CUDA_KERNEL_NODE_PARAMS *params, struct work **work) {
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

static CUresult copy_work(const CUDA_MEMCPY3D *params, CUcontext handle, struct work **work) {
  struct context *context;
  TRY(context_for(handle, &context));
  return params ? make_copy(params, context, work) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult set_work(const CUDA_MEMSET_NODE_PARAMS *params, CUcontext handle,
                         struct work **work) {
  struct context *context;
  TRY(context_for(handle, &context));
  return params ? make_set(params, context, work) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult host_work(CUhostFn function, void *data, struct work **work) {
  struct context *context = current_context();
  TRY(check_context(context));
  if (!function) return CUDA_ERROR_INVALID_VALUE;
  *work = new_work(HOST_CALL, context, 0);
  (*work)->host.function = function;
  (*work)->host.data = data;
  return CUDA_SUCCESS;
}

static CUresult event_work(enum work_kind kind, CUevent handle, struct work **work) {
  struct event *event = find_event(handle);
  if (!event) return CUDA_ERROR_INVALID_VALUE;
  *work = new_work(kind, event->context, 0);
  (*work)->event = event;
  event->references++;
  return CUDA_SUCCESS;
}

static CUresult allocate_work(const CUmemPoolProps *props, size_t size, CUdeviceptr *address,
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

static CUresult free_work(CUdeviceptr address, struct work **work) {
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
static CUresult work_of(CUgraphNodeParams *params, struct work **work) {
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

/* ---- adding ---- */
static CUresult add(CUgraphNode *out, struct graph *graph, CUgraphNodeType type,
                    const CUgraphNode *after, size_t count, struct work *work) {
  *out = (CUgraphNode)add_node(graph, type, work, (struct node *const *)after, count);
  return CUDA_SUCCESS;
}

#define PLACE(out, handle, after, count)       \
  ENTER;                                       \
  struct graph *graph;                         \
  struct work *work = NULL;                    \
  if (!(out)) return CUDA_ERROR_INVALID_VALUE; \
  TRY(check_place(handle, after, count, &graph))

CUresult CUDAAPI cuGraphAddKernelNode(CUgraphNode *out, CUgraph handle,
                                      const CUgraphNode *after, size_t count,
                                      const CUDA_KERNEL_NODE_PARAMS *params) {
  PLACE(out, handle, after, count);
  TRY(kernel_work(params, &work));
  return add(out, graph, CU_GRAPH_NODE_TYPE_KERNEL, after, count, work);
}

CUresult CUDAAPI cuGraphAddMemcpyNode(CUgraphNode *out, CUgraph handle,
                                      const CUgraphNode *after, size_t count,
                                      const CUDA_MEMCPY3D *params, CUcontext context) {
  PLACE(out, handle, after, count);
  TRY(copy_work(params, context, &work));
  return add(out, graph, CU_GRAPH_NODE_TYPE_MEMCPY, after, count, work);
}

CUresult CUDAAPI cuGraphAddMemsetNode(CUgraphNode *out, CUgraph handle,
                                      const CUgraphNode *after, size_t count,
                                      const CUDA_MEMSET_NODE_PARAMS *params,
                                      CUcontext context) {
  PLACE(out, handle, after, count);
  TRY(set_work(params, context, &work));
  return add(out, graph, CU_GRAPH_NODE_TYPE_MEMSET, after, count, work);
}

CUresult CUDAAPI cuGraphAddHostNode(CUgraphNode *out, CUgraph handle, const CUgraphNode *after,
                                    size_t count, const CUDA_HOST_NODE_PARAMS *params) {
  PLACE(out, handle, after, count);
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  TRY(host_work(params->fn, params->userData, &work));
  return add(out, graph, CU_GRAPH_NODE_TYPE_HOST, after, count, work);
}

CUresult CUDAAPI cuGraphAddEmptyNode(CUgraphNode *out, CUgraph handle,
                                     const CUgraphNode *after, size_t count) {
  PLACE(out, handle, after, count);
  TRY(check_context(current_context()));
  work = new_work(NOTHING, current_context(), 0);
  return add(out, graph, CU_GRAPH_NODE_TYPE_EMPTY, after, count, work);
}

CUresult CUDAAPI cuGraphAddEventRecordNode(CUgraphNode *out, CUgraph handle,
                                           const CUgraphNode *after, size_t count,
                                           CUevent event) {
  PLACE(out, handle, after, count);
  TRY(event_work(RECORD, event, &work));
  return add(out, graph, CU_GRAPH_NODE_TYPE_EVENT_RECORD, after, count, work);
}

CUresult CUDAAPI cuGraphAddEventWaitNode(CUgraphNode *out, CUgraph handle,
                                         const CUgraphNode *after, size_t count,
                                         CUevent event) {
  PLACE(out, handle, after, count);
  TRY(event_work(WAIT, event, &work));
  return add(out, graph, CU_GRAPH_NODE_TYPE_WAIT_EVENT, after, count, work);
}

static CUresult add_child(CUgraphNode *out, struct graph *graph, const CUgraphNode *after,
                          size_t count, struct graph *child, bool move) {
  if (!child || child->owner || child == graph) return CUDA_ERROR_INVALID_VALUE;
  TRY(add(out, graph, CU_GRAPH_NODE_TYPE_GRAPH, after, count, NULL));
  struct node *node = (struct node *)*out;
  node->child = move ? child : clone_graph(child);
  node->child->owner = node;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphAddChildGraphNode(CUgraphNode *out, CUgraph handle,
                                          const CUgraphNode *after, size_t count,
                                          CUgraph child) {
  PLACE(out, handle, after, count);
  (void)work;
  return add_child(out, graph, after, count, find_graph(child), false);
}

CUresult CUDAAPI cuGraphAddMemAllocNode(CUgraphNode *out, CUgraph handle,
                                        const CUgraphNode *after, size_t count,
                                        CUDA_MEM_ALLOC_NODE_PARAMS *params) {
  PLACE(out, handle, after, count);
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  TRY(allocate_work(&params->poolProps, params->bytesize, &params->dptr, &work));
  return add(out, graph, CU_GRAPH_NODE_TYPE_MEM_ALLOC, after, count, work);
}

CUresult CUDAAPI cuGraphAddMemFreeNode(CUgraphNode *out, CUgraph handle,
                                       const CUgraphNode *after, size_t count,
                                       CUdeviceptr address) {
  PLACE(out, handle, after, count);
  TRY(free_work(address, &work));
  return add(out, graph, CU_GRAPH_NODE_TYPE_MEM_FREE, after, count, work);
}

static CUresult add_any(CUgraphNode *out, struct graph *graph, const CUgraphNode *after,
                        size_t count, CUgraphNodeParams *params) {
  struct work *work = NULL;
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  if (params->type == CU_GRAPH_NODE_TYPE_GRAPH) {
    bool move = params->graph.ownership == CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE;
    return add_child(out, graph, after, count, find_graph(params->graph.graph), move);
  }
  TRY(work_of(params, &work));
  return add(out, graph, params->type, after, count, work);
}

CUresult CUDAAPI cuGraphAddNode(CUgraphNode *out, CUgraph handle, const CUgraphNode *after,
                                const CUgraphEdgeData *edges, size_t count,
                                CUgraphNodeParams *params) {
  PLACE(out, handle, after, count);
  (void)edges, (void)work;
  return add_any(out, graph, after, count, params);
}

/* ---- asking ---- */
static struct node *node_of_type(CUgraphNode handle, CUgraphNodeType type) {
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
  return CUDA_SUCCESS;
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

/* ---- changing: in the graph (exec is NULL) or in an executable one ---- */
static CUresult change(CUgraphExec exec, CUgraphNode handle, CUgraphNodeType type,
                       CUresult made, struct work *work) {
  if (made) return made;
  struct node *node = node_of_type(handle, type);
  if (!node) {
    drop_work(work);
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (exec) return replace_step(exec, node, work);
  drop_work(node->work);
  node->work = work;
  return CUDA_SUCCESS;
}

#define CHANGE(exec, handle, type, make) \
  ENTER;                                 \
  struct work *work = NULL;              \
  CUresult made = make;                  \
  return change(exec, handle, CU_GRAPH_NODE_TYPE_##type, made, work)

CUresult CUDAAPI cuGraphKernelNodeSetParams(CUgraphNode node,
                                            const CUDA_KERNEL_NODE_PARAMS *params) {
  CHANGE(NULL, node, KERNEL, kernel_work(params, &work));
}
CUresult CUDAAPI cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                const CUDA_KERNEL_NODE_PARAMS *params) {
  CHANGE(exec, node, KERNEL, kernel_work(params, &work));
}
CUresult CUDAAPI cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D *params) {
  CHANGE(NULL, node, MEMCPY, copy_work(params, NULL, &work));
}
CUresult CUDAAPI cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                const CUDA_MEMCPY3D *params,
                                                CUcontext context) {
  CHANGE(exec, node, MEMCPY, copy_work(params, context, &work));
}
CUresult CUDAAPI cuGraphMemsetNodeSetParams(CUgraphNode node,
                                            const CUDA_MEMSET_NODE_PARAMS *params) {
  CHANGE(NULL, node, MEMSET, set_work(params, NULL, &work));
}
CUresult CUDAAPI cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                const CUDA_MEMSET_NODE_PARAMS *params,
                                                CUcontext context) {
  CHANGE(exec, node, MEMSET, set_work(params, context, &work));
}
CUresult CUDAAPI cuGraphHostNodeSetParams(CUgraphNode node,
                                          const CUDA_HOST_NODE_PARAMS *params) {
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  CHANGE(NULL, node, HOST, host_work(params->fn, params->userData, &work));
}
CUresult CUDAAPI cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                              const CUDA_HOST_NODE_PARAMS *params) {
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  CHANGE(exec, node, HOST, host_work(params->fn, params->userData, &work));
}
CUresult CUDAAPI cuGraphEventRecordNodeSetEvent(CUgraphNode node, CUevent event) {
  CHANGE(NULL, node, EVENT_RECORD, event_work(RECORD, event, &work));
}
CUresult CUDAAPI cuGraphExecEventRecordNodeSetEvent(CUgraphExec exec, CUgraphNode node,
                                                    CUevent event) {
  CHANGE(exec, node, EVENT_RECORD, event_work(RECORD, event, &work));
}
CUresult CUDAAPI cuGraphEventWaitNodeSetEvent(CUgraphNode node, CUevent event) {
  CHANGE(NULL, node, WAIT_EVENT, event_work(WAIT, event, &work));
}
CUresult CUDAAPI cuGraphExecEventWaitNodeSetEvent(CUgraphExec exec, CUgraphNode node,
                                                  CUevent event) {
  CHANGE(exec, node, WAIT_EVENT, event_work(WAIT, event, &work));
}

static CUresult change_any(CUgraphExec exec, CUgraphNode handle, CUgraphNodeParams *params) {
  struct work *work = NULL;
  if (!params || !find_node(handle)) return CUDA_ERROR_INVALID_VALUE;
  bool memory = params->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC ||
                params->type == CU_GRAPH_NODE_TYPE_MEM_FREE;
  if (memory || params->type != find_node(handle)->type) return CUDA_ERROR_INVALID_VALUE;
  TRY(work_of(params, &work));
  return change(exec, handle, params->type, CUDA_SUCCESS, work);
}

CUresult CUDAAPI cuGraphNodeSetParams(CUgraphNode node, CUgraphNodeParams *params) {
  ENTER;
  return change_any(NULL, node, params);
}

CUresult CUDAAPI cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                          CUgraphNodeParams *params) {
  ENTER;
  return exec ? change_any(exec, node, params) : CUDA_ERROR_INVALID_VALUE;
}

/* Attributes of launches are hints here. */
CUresult CUDAAPI cuGraphKernelNodeCopyAttributes(CUgraphNode to, CUgraphNode from) {
  ENTER;
  bool kernels = node_of_type(to, CU_GRAPH_NODE_TYPE_KERNEL) &&
                 node_of_type(from, CU_GRAPH_NODE_TYPE_KERNEL);
  return kernels ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- memory of graphs ---- */
CUresult CUDAAPI cuDeviceGraphMemTrim(CUdevice device) {
  ENTER;
  return check_device(device);
}
