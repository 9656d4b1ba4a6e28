/* What nodes do, changed in a graph or in an executable one. */
#include "graphs.h"

/* In the graph itself if `exec` is NULL. */
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
