/* Graphs: nodes and what they depend on. What a node does is a `struct work`, as in a stream's
 * queue. */
#include <stdio.h>
#include "driver.h"

static unsigned long long next_graph = 1, next_node = 1;

struct graph *new_graph(void) {
  struct graph *graph = calloc(1, sizeof *graph);
  graph->id = next_graph++;
  add_handle(graph, GRAPH);
  return graph;
}

struct graph *find_graph(CUgraph handle) {
  return is_handle(handle, GRAPH) ? (struct graph *)handle : NULL;
}
struct node *find_node(CUgraphNode handle) {
  return is_handle(handle, NODE) ? (struct node *)handle : NULL;
}

CUgraphNodeType type_of(const struct work *work) {
  switch (work->kind) {
    case LAUNCH: return CU_GRAPH_NODE_TYPE_KERNEL;
    case COPY: return CU_GRAPH_NODE_TYPE_MEMCPY;
    case SET: return CU_GRAPH_NODE_TYPE_MEMSET;
    case HOST_CALL: return CU_GRAPH_NODE_TYPE_HOST;
    case ALLOCATE: return CU_GRAPH_NODE_TYPE_MEM_ALLOC;
    case FREE: return CU_GRAPH_NODE_TYPE_MEM_FREE;
    case RECORD: return CU_GRAPH_NODE_TYPE_EVENT_RECORD;
    case WAIT: return CU_GRAPH_NODE_TYPE_WAIT_EVENT;
    case PROGRAM: return CU_GRAPH_NODE_TYPE_GRAPH;
    case NOTHING: break;
  }
  return CU_GRAPH_NODE_TYPE_EMPTY;
}

static bool depends(const struct node *node, const struct node *on) {
  for (size_t at = 0; at < node->from_count; at++)
    if (node->from[at] == on) return true;
  return false;
}

static void add_dependency(struct node *node, struct node *on) {
  if (depends(node, on)) return;
  node->from = realloc(node->from, (node->from_count + 1) * sizeof *node->from);
  node->from[node->from_count++] = on;
}

static void remove_dependency(struct node *node, const struct node *on) {
  size_t kept = 0;
  for (size_t at = 0; at < node->from_count; at++)
    if (node->from[at] != on) node->from[kept++] = node->from[at];
  node->from_count = kept;
}

struct node *add_node(struct graph *graph, CUgraphNodeType type, struct work *work,
                      struct node *const *from, size_t from_count) {
  struct node *node = calloc(1, sizeof *node);
  node->graph = graph;
  node->type = type;
  node->work = work;
  node->id = next_node++;
  for (size_t at = 0; at < from_count; at++) add_dependency(node, from[at]);
  if (graph->count == graph->room) {
    graph->room = graph->room ? 2 * graph->room : 16;
    graph->nodes = realloc(graph->nodes, graph->room * sizeof *graph->nodes);
  }
  graph->nodes[graph->count++] = node;
  add_handle(node, NODE);
  return node;
}

static void drop_node(struct node *node) {
  drop_handle(node);
  if (node->child) drop_graph(node->child);
  drop_work(node->work);
  free(node->from);
  free(node);
}

void drop_graph(struct graph *graph) {
  drop_handle(graph);
  for (size_t at = 0; at < graph->count; at++) drop_node(graph->nodes[at]);
  drop_objects(graph->objects, graph->object_count);
  free(graph->nodes);
  free(graph);
}

static size_t index_of(const struct node *node) {
  size_t at = 0;
  while (node->graph->nodes[at] != node) at++;
  return at;
}

struct graph *clone_graph(const struct graph *graph) {
  struct graph *clone = new_graph();
  for (size_t at = 0; at < graph->count; at++) {
    const struct node *node = graph->nodes[at];
    struct node *copy = add_node(clone, node->type, keep_work(node->work), NULL, 0);
    copy->original = node->id;
    if (node->child) {
      copy->child = clone_graph(node->child);
      copy->child->owner = copy;
    }
  }
  for (size_t at = 0; at < graph->count; at++)
    for (size_t n = 0; n < graph->nodes[at]->from_count; n++)
      add_dependency(clone->nodes[at], clone->nodes[index_of(graph->nodes[at]->from[n])]);
  clone->objects = keep_objects(graph->objects, graph->object_count);
  clone->object_count = graph->object_count;
  return clone;
}

CUresult check_place(CUgraph handle, const CUgraphNode *after, size_t count,
                     struct graph **graph) {
  *graph = find_graph(handle);
  if (!*graph || (count && !after)) return CUDA_ERROR_INVALID_VALUE;
  for (size_t at = 0; at < count; at++) {
    struct node *node = find_node(after[at]);
    if (!node || node->graph != *graph) return CUDA_ERROR_INVALID_VALUE;
    for (size_t n = 0; n < at; n++)
      if (after[n] == after[at]) return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

/* ---- graphs as such ---- */
CUresult CUDAAPI cuGraphCreate(CUgraph *out, unsigned int flags) {
  ENTER;
  if (!out || flags) return CUDA_ERROR_INVALID_VALUE;
  *out = (CUgraph)new_graph();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphDestroy(CUgraph handle) {
  ENTER;
  struct graph *graph = find_graph(handle);
  if (!graph || graph->owner) return CUDA_ERROR_INVALID_VALUE;
  drop_graph(graph);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphClone(CUgraph *out, CUgraph handle) {
  ENTER;
  struct graph *graph = find_graph(handle);
  if (!graph || !out) return CUDA_ERROR_INVALID_VALUE;
  *out = (CUgraph)clone_graph(graph);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphNodeFindInClone(CUgraphNode *out, CUgraphNode handle,
                                        CUgraph clone_handle) {
  ENTER;
  struct node *node = find_node(handle);
  struct graph *clone = find_graph(clone_handle);
  if (!node || !clone || !out) return CUDA_ERROR_INVALID_VALUE;
  for (size_t at = 0; at < clone->count; at++)
    if (clone->nodes[at]->original == node->id) {
      *out = (CUgraphNode)clone->nodes[at];
      return CUDA_SUCCESS;
    }
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphGetId(CUgraph handle, unsigned int *id) {
  ENTER;
  struct graph *graph = find_graph(handle);
  if (!graph) return CUDA_ERROR_INVALID_VALUE;
  *id = (unsigned)graph->id;
  return CUDA_SUCCESS;
}

static void print_dot(FILE *file, const struct graph *graph) {
  static const char *const NAMES[] = {
      "kernel",       "memcpy", "memset", "host",     "graph", "empty", "wait event",
      "record event", "signal", "wait",   "allocate", "free",  "batch", "conditional"};
  fprintf(file, "digraph graph_%llu {\n", graph->id);
  for (size_t at = 0; at < graph->count; at++) {
    const struct node *node = graph->nodes[at];
    bool kernel = node->type == CU_GRAPH_NODE_TYPE_KERNEL;
    fprintf(file, "  node_%llu [label=\"%s\"]\n", node->id,
            kernel ? node->work->launch.kernel->name : NAMES[node->type]);
    for (size_t n = 0; n < node->from_count; n++)
      fprintf(file, "  node_%llu -> node_%llu\n", node->from[n]->id, node->id);
  }
  fprintf(file, "}\n");
}

CUresult CUDAAPI cuGraphDebugDotPrint(CUgraph handle, const char *path, unsigned int flags) {
  ENTER;
  (void)flags;
  struct graph *graph = find_graph(handle);
  FILE *file = graph && path ? fopen(path, "w") : NULL;
  if (!file) return graph ? CUDA_ERROR_OPERATING_SYSTEM : CUDA_ERROR_INVALID_VALUE;
  print_dot(file, graph);
  fclose(file);
  return CUDA_SUCCESS;
}

/* ---- lists: with NULL only their length; what does not fit is left out, what is missing is
 * NULL ---- */
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

CUresult CUDAAPI cuGraphDestroyNode(CUgraphNode handle) {
  ENTER;
  struct node *node = find_node(handle);
  if (!node) return CUDA_ERROR_INVALID_VALUE;
  struct graph *graph = node->graph;
  size_t at = index_of(node);
  memmove(graph->nodes + at, graph->nodes + at + 1,
          (graph->count - at - 1) * sizeof *graph->nodes);
  graph->count--;
  for (size_t n = 0; n < graph->count; n++) remove_dependency(graph->nodes[n], node);
  drop_node(node);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphNodeGetType(CUgraphNode handle, CUgraphNodeType *type) {
  ENTER;
  struct node *node = find_node(handle);
  if (!node || !type) return CUDA_ERROR_INVALID_VALUE;
  *type = node->type;
  return CUDA_SUCCESS;
}

CUresult cuGraphNodeGetContainingGraph(CUgraphNode handle, CUgraph *graph) {
  ENTER;
  struct node *node = find_node(handle);
  if (!node || !graph) return CUDA_ERROR_INVALID_VALUE;
  *graph = (CUgraph)node->graph;
  return CUDA_SUCCESS;
}

CUresult cuGraphNodeGetLocalId(CUgraphNode handle, unsigned int *id) {
  ENTER;
  struct node *node = find_node(handle);
  if (!node || !id) return CUDA_ERROR_INVALID_VALUE;
  *id = (unsigned)node->id;
  return CUDA_SUCCESS;
}
