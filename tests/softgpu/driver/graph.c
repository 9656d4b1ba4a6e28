/* Graphs: nodes and what they depend on. What a node does is a `struct work`, as in a stream's
 * queue. */
#include <stdio.h>
#include "graphs.h"

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
