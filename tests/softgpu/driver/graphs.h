/* Graphs: nodes with what they depend on, and programs, which are run. */
#ifndef GRAPHS_H
#define GRAPHS_H

#include "driver.h"

struct node {
  struct graph *graph, *child;
  struct work *work;
  CUgraphNodeType type;
  unsigned long long id;
  struct node **from; /* what it depends on */
  size_t from_count;
  unsigned long long original; /* of a clone: the id of what was cloned */
};
struct graph {
  unsigned long long id;
  struct node **nodes; /* in the order of creation */
  size_t count, room;
  struct node *owner; /* of a child graph */
  struct user_object **objects;
  size_t object_count;
};

/* ---- graph.c ---- */
struct graph *new_graph(void);
struct graph *clone_graph(const struct graph *graph);
void drop_graph(struct graph *graph);
struct node *add_node(struct graph *graph, CUgraphNodeType type, struct work *work,
                      struct node *const *from, size_t from_count);
CUgraphNodeType type_of(const struct work *work);
struct graph *find_graph(CUgraph handle);
struct node *find_node(CUgraphNode handle);
/* Whether nodes may be added to a graph after these. */
CUresult check_place(CUgraph handle, const CUgraphNode *after, size_t count,
                     struct graph **graph);

/* ---- edges.c ---- */
bool depends(const struct node *node, const struct node *on);
void add_dependency(struct node *node, struct node *on);
void remove_dependency(struct node *node, const struct node *on);

/* ---- objects.c ---- */
struct user_object **keep_objects(struct user_object *const *objects, size_t count);
void drop_objects(struct user_object **objects, size_t count);

/* ---- node_work.c: a reference to new work, or an error ---- */
CUresult kernel_work(const CUDA_KERNEL_NODE_PARAMS *params, struct work **work);
CUresult copy_work(const CUDA_MEMCPY3D *params, CUcontext context, struct work **work);
CUresult set_work(const CUDA_MEMSET_NODE_PARAMS *params, CUcontext context,
                  struct work **work);
CUresult host_work(CUhostFn function, void *data, struct work **work);
CUresult event_work(enum work_kind kind, CUevent event, struct work **work);
CUresult allocate_work(const CUmemPoolProps *props, size_t size, CUdeviceptr *address,
                       struct work **work);
CUresult free_work(CUdeviceptr address, struct work **work);
CUresult work_of(CUgraphNodeParams *params, struct work **work);

/* ---- node_params.c, exec.c ---- */
struct node *node_of_type(CUgraphNode handle, CUgraphNodeType type); /* or NULL */
CUresult replace_step(CUgraphExec exec, const struct node *node, struct work *work);

/* ---- programs (program.c) ---- */
struct step {
  unsigned long long node; /* id of the node that it came from */
  CUgraphNodeType type;
  struct work *work;
  bool disabled;
};
struct topology { /* shared by a program and its copies */
  int references;
  size_t *order;
  size_t *from_start, *from; /* of step n: from[from_start[n]] up to from[from_start[n + 1]] */
};
struct program {
  int references;
  size_t count;
  struct step *steps; /* in the order in which nodes were made */
  struct topology *topology;
  bool auto_free, has_events;
  struct user_object **objects;
  size_t object_count;
};
struct program *new_program(struct graph *graph); /* NULL: its edges make a circle */
struct program *keep_program(struct program *program);
struct work *work_of_child(struct graph *child); /* NULL: the same */
/* The step of a node, with all programs on the way to it owned; child graphs are searched,
 * too. */
struct step *find_step(struct program **program, unsigned long long node);

#endif
