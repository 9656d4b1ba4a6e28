/* Nodes of each type are added to a graph. */
#include "graphs.h"

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
