/* User objects: what must live as long as a graph or its launches. Their ends run without any
 * lock. */
#include "graphs.h"

struct user_object {
  unsigned long long references;
  CUhostFn destroy;
  void *data;
  struct user_object *next; /* among those that have ended */
};

static struct user_object *ended;

static struct user_object *find(CUuserObject handle) {
  return is_handle(handle, USER_OBJECT) ? (struct user_object *)handle : NULL;
}

static void drop(struct user_object *object) {
  if (--object->references) return;
  drop_handle(object);
  object->next = ended;
  ended = object;
}

struct user_object **keep_objects(struct user_object *const *objects, size_t count) {
  struct user_object **copy = malloc((count + 1) * sizeof *copy);
  for (size_t at = 0; at < count; at++) {
    copy[at] = objects[at];
    copy[at]->references++;
  }
  return copy;
}

void drop_objects(struct user_object **objects, size_t count) {
  for (size_t at = 0; at < count; at++) drop(objects[at]);
  free(objects);
}

void run_ends(void) {
  while (ended) {
    struct user_object *object = ended;
    bool outside = !inside_host_function;
    ended = object->next;
    if (begin_callback()) {
      inside_host_function = true;
      object->destroy(object->data);
      if (outside) inside_host_function = false;
      take_lock();
    }
    free(object);
  }
}

CUresult CUDAAPI cuUserObjectCreate(CUuserObject *out, void *data, CUhostFn destroy,
                                    unsigned int references, unsigned int flags) {
  ENTER;
  if (!out || !destroy || !references || flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC)
    return CUDA_ERROR_INVALID_VALUE;
  struct user_object *object = malloc(sizeof *object);
  *object = (struct user_object){references, destroy, data, NULL};
  add_handle(object, USER_OBJECT);
  *out = (CUuserObject)object;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuUserObjectRetain(CUuserObject handle, unsigned int count) {
  ENTER;
  struct user_object *object = find(handle);
  if (!object || !count) return CUDA_ERROR_INVALID_VALUE;
  object->references += count;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuUserObjectRelease(CUuserObject handle, unsigned int count) {
  ENTER;
  struct user_object *object = find(handle);
  if (!object || !count || count > object->references) return CUDA_ERROR_INVALID_VALUE;
  while (count--) drop(object);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphRetainUserObject(CUgraph handle, CUuserObject object_handle,
                                         unsigned int count, unsigned int flags) {
  ENTER;
  struct graph *graph = find_graph(handle);
  struct user_object *object = find(object_handle);
  bool move = flags == CU_GRAPH_USER_OBJECT_MOVE;
  if (!graph || !object || !count || (flags && !move)) return CUDA_ERROR_INVALID_VALUE;
  if (move && count > object->references) return CUDA_ERROR_INVALID_VALUE;
  graph->objects =
      realloc(graph->objects, (graph->object_count + count) * sizeof *graph->objects);
  for (unsigned at = 0; at < count; at++) graph->objects[graph->object_count++] = object;
  if (!move) object->references += count;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphReleaseUserObject(CUgraph handle, CUuserObject object_handle,
                                          unsigned int count) {
  ENTER;
  struct graph *graph = find_graph(handle);
  struct user_object *object = find(object_handle);
  if (!graph || !object) return CUDA_ERROR_INVALID_VALUE;
  for (size_t at = graph->object_count; at-- > 0 && count;)
    if (graph->objects[at] == object) {
      graph->objects[at] = graph->objects[--graph->object_count];
      drop(object);
      count--;
    }
  return count ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
