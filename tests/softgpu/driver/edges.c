/* Edges of graphs, and lists of nodes. */
#include "graphs.h"

bool depends(const struct node *node, const struct node *on) {
  for (size_t at = 0; at < node->from_count; at++)
    if (node->from[at] == on) return true;
  return false;
}

void add_dependency(struct node *node, struct node *on) {
  if (depends(node, on)) return;
  node->from = realloc(node->from, (node->from_count + 1) * sizeof *node->from);
  node->from[node->from_count++] = on;
}

void remove_dependency(struct node *node, const struct node *on) {
  size_t kept = 0;
  for (size_t at = 0; at < node->from_count; at++)
    if (node->from[at] != on) node->from[kept++] = node->from[at];
  node->from_count = kept;
}

/* ---- lists ----
 * With NULL only their length; what does not fit is left out, what is missing is NULL.
 */
struct list {
  CUgraphNode *nodes;
  size_t *length, count;
};

static void put(struct list *list, struct node *node) {
  if (list->nodes && list->count < *list->length) list->nodes[list->count] = (CUgraphNode)node;
  list->count++;
}

static CUresult finish(struct list *list) {
  if (!list->nodes) {
    *list->length = list->count;
    return CUDA_SUCCESS;
  }
  for (size_t at = list->count; at < *list->length; at++) list->nodes[at] = NULL;
  if (list->count < *list->length) *list->length = list->count;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphGetNodes(CUgraph handle, CUgraphNode *nodes, size_t *length) {
  ENTER;
  struct graph *graph = find_graph(handle);
  if (!graph || !length) return CUDA_ERROR_INVALID_VALUE;
  struct list list = {nodes, length, 0};
  for (size_t at = 0; at < graph->count; at++) put(&list, graph->nodes[at]);
  return finish(&list);
}

CUresult CUDAAPI cuGraphGetRootNodes(CUgraph handle, CUgraphNode *nodes, size_t *length) {
  ENTER;
  struct graph *graph = find_graph(handle);
  if (!graph || !length) return CUDA_ERROR_INVALID_VALUE;
  struct list list = {nodes, length, 0};
  for (size_t at = 0; at < graph->count; at++)
    if (!graph->nodes[at]->from_count) put(&list, graph->nodes[at]);
  return finish(&list);
}

/* An edge's data says how much of a kernel must be done; here it is always all of it. */
static void clear(CUgraphEdgeData *edges, const CUgraphNode *nodes, const size_t *length) {
  if (edges && nodes) memset(edges, 0, *length * sizeof *edges);
}

static CUresult get_edges(CUgraph handle, CUgraphNode *from, CUgraphNode *to, size_t *length) {
  struct graph *graph = find_graph(handle);
  if (!graph || !length || !from != !to) return CUDA_ERROR_INVALID_VALUE;
  size_t room = *length;
  struct list sources = {from, length, 0}, targets = {to, &room, 0};
  for (size_t at = 0; at < graph->count; at++)
    for (size_t n = 0; n < graph->nodes[at]->from_count; n++) {
      put(&sources, graph->nodes[at]->from[n]);
      put(&targets, graph->nodes[at]);
    }
  finish(&targets);
  return finish(&sources);
}

CUresult CUDAAPI cuGraphGetEdges(CUgraph handle, CUgraphNode *from, CUgraphNode *to,
                                 CUgraphEdgeData *edges, size_t *length) {
  ENTER;
  TRY(get_edges(handle, from, to, length));
  clear(edges, from, length);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphNodeGetDependencies(CUgraphNode handle, CUgraphNode *nodes,
                                            CUgraphEdgeData *edges, size_t *length) {
  ENTER;
  struct node *node = find_node(handle);
  if (!node || !length) return CUDA_ERROR_INVALID_VALUE;
  struct list list = {nodes, length, 0};
  for (size_t at = 0; at < node->from_count; at++) put(&list, node->from[at]);
  TRY(finish(&list));
  clear(edges, nodes, length);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphNodeGetDependentNodes(CUgraphNode handle, CUgraphNode *nodes,
                                              CUgraphEdgeData *edges, size_t *length) {
  ENTER;
  struct node *node = find_node(handle);
  if (!node || !length) return CUDA_ERROR_INVALID_VALUE;
  struct list list = {nodes, length, 0};
  for (size_t at = 0; at < node->graph->count; at++)
    if (depends(node->graph->nodes[at], node)) put(&list, node->graph->nodes[at]);
  TRY(finish(&list));
  clear(edges, nodes, length);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphAddDependencies(CUgraph handle, const CUgraphNode *from,
                                        const CUgraphNode *to, const CUgraphEdgeData *edges,
                                        size_t count) {
  ENTER;
  (void)edges;
  struct graph *graph = find_graph(handle);
  if (!graph) return CUDA_ERROR_INVALID_VALUE;
  for (size_t at = 0; at < count; at++) {
    struct node *source = find_node(from[at]), *target = find_node(to[at]);
    bool here = source && target && source->graph == graph && target->graph == graph;
    if (!here || source == target || depends(target, source)) return CUDA_ERROR_INVALID_VALUE;
    add_dependency(target, source);
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphRemoveDependencies(CUgraph handle, const CUgraphNode *from,
                                           const CUgraphNode *to, const CUgraphEdgeData *edges,
                                           size_t count) {
  ENTER;
  (void)edges;
  if (!find_graph(handle)) return CUDA_ERROR_INVALID_VALUE;
  for (size_t at = 0; at < count; at++) {
    struct node *source = find_node(from[at]), *target = find_node(to[at]);
    if (!source || !target || !depends(target, source)) return CUDA_ERROR_INVALID_VALUE;
    remove_dependency(target, source);
  }
  return CUDA_SUCCESS;
}
