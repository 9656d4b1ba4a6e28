/* Executable graphs: launched, changed step by step, made anew of another graph. */
#include "graphs.h"

struct exec {
  unsigned long long id, flags;
  struct program *program;
  struct point last; /* launches of one exec follow each other */
};

static struct exec *find_exec(CUgraphExec handle) {
  return is_handle(handle, EXEC) ? (struct exec *)handle : NULL;
}

CUresult replace_step(CUgraphExec handle, const struct node *node, struct work *work) {
  struct exec *exec = find_exec(handle);
  struct step *step = exec ? find_step(&exec->program, node->id) : NULL;
  if (!step || step->type != type_of(work)) {
    drop_work(work);
    return exec ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
  }
  drop_work(step->work);
  step->work = work;
  return CUDA_SUCCESS;
}

static CUresult instantiate(CUgraphExec *out, CUgraph handle, unsigned long long flags) {
  static unsigned long long next_id = 1;
  struct graph *graph = find_graph(handle);
  if (!graph || !out || flags & ~15ull) return CUDA_ERROR_INVALID_VALUE;
  if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH) return CUDA_ERROR_NOT_SUPPORTED;
  struct program *program = new_program(graph);
  if (!program) return CUDA_ERROR_INVALID_VALUE;
  program->auto_free = flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
  struct exec *exec = malloc(sizeof *exec);
  *exec = (struct exec){next_id++, flags, program, {0}};
  add_handle(exec, EXEC);
  *out = (CUgraphExec)exec;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphInstantiate(CUgraphExec *out, CUgraph graph,
                                    unsigned long long flags) {
  ENTER_CONTEXT(context);
  return instantiate(out, graph, flags);
}

CUresult CUDAAPI cuGraphInstantiateWithParams(CUgraphExec *out, CUgraph graph,
                                              CUDA_GRAPH_INSTANTIATE_PARAMS *params) {
  ENTER_CONTEXT(context);
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  CUresult error = instantiate(out, graph, params->flags);
  params->hErrNode_out = NULL;
  params->result_out = error == CUDA_ERROR_INVALID_VALUE
                           ? CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE
                       : error ? CUDA_GRAPH_INSTANTIATE_ERROR
                               : CUDA_GRAPH_INSTANTIATE_SUCCESS;
  return error;
}

CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec handle) {
  ENTER;
  struct exec *exec = find_exec(handle);
  if (!exec) return CUDA_ERROR_INVALID_VALUE;
  drop_handle(exec);
  drop_program(exec->program);
  free(exec);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphExecGetFlags(CUgraphExec handle, cuuint64_t *flags) {
  ENTER;
  struct exec *exec = find_exec(handle);
  if (!exec) return CUDA_ERROR_INVALID_VALUE;
  *flags = exec->flags;
  return CUDA_SUCCESS;
}

CUresult cuGraphExecGetId(CUgraphExec handle, unsigned int *id) {
  ENTER;
  struct exec *exec = find_exec(handle);
  if (!exec) return CUDA_ERROR_INVALID_VALUE;
  *id = (unsigned)exec->id;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphUpload(CUgraphExec handle, CUstream stream_handle) {
  ENTER_CONTEXT(context);
  struct stream *stream;
  TRY(find_stream(stream_handle, context, &stream));
  return find_exec(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* A launch of a graph waits for the events of its wait nodes, and its record nodes are reached
 * with it. */
static void follow_events(const struct program *program, struct stream *stream, bool before) {
  for (size_t at = 0; at < program->count; at++) {
    const struct work *work = program->steps[at].work;
    if (program->steps[at].disabled) continue;
    if (work->kind == PROGRAM) follow_events(work->program, stream, before);
    else if (work->kind == WAIT && before && work->event->recorded)
      wait_at_end(stream, work->event->point);
    else if (work->kind == RECORD && !before)
      record_event(work->event, stream, end_of(stream));
  }
}

CUresult CUDAAPI cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
  ENTER_CONTEXT(context);
  struct stream *stream;
  struct exec *exec = find_exec(handle);
  TRY(find_stream(stream_handle, context, &stream));
  if (!exec) return CUDA_ERROR_INVALID_VALUE;
  struct work *work = new_work(PROGRAM, stream->context, 0);
  struct program *program = work->program = keep_program(exec->program);
  if (stream->capture) return enqueue(stream, work);
  wait_at_end(stream, exec->last);
  if (program->has_events) follow_events(program, stream, true);
  CUresult error = enqueue(stream, work);
  exec->last = end_of(stream);
  if (exec->program->has_events) follow_events(exec->program, stream, false);
  return error;
}

CUresult CUDAAPI cuGraphNodeSetEnabled(CUgraphExec handle, CUgraphNode node_handle,
                                       unsigned int enabled) {
  ENTER;
  struct exec *exec = find_exec(handle);
  struct node *node = find_node(node_handle);
  struct step *step = exec && node ? find_step(&exec->program, node->id) : NULL;
  bool may = step && (step->work->kind == LAUNCH || step->work->kind == COPY ||
                      step->work->kind == SET);
  if (!may) return CUDA_ERROR_INVALID_VALUE;
  step->disabled = !enabled;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphNodeGetEnabled(CUgraphExec handle, CUgraphNode node_handle,
                                       unsigned int *enabled) {
  ENTER;
  struct exec *exec = find_exec(handle);
  struct node *node = find_node(node_handle);
  struct step *step = exec && node ? find_step(&exec->program, node->id) : NULL;
  if (!step || !enabled) return CUDA_ERROR_INVALID_VALUE;
  *enabled = !step->disabled;
  return CUDA_SUCCESS;
}

/* ---- the whole of it anew ---- */
static CUgraphExecUpdateResult compare(const struct program *old, const struct program *new,
                                       size_t *where) {
  const struct topology *a = old->topology, *b = new->topology;
  if (old->count != new->count) return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
  for (size_t at = 0; at < old->count; at++) {
    *where = at;
    if (old->steps[at].type != new->steps[at].type)
      return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
    size_t count = a->from_start[at + 1] - a->from_start[at];
    if (count != b->from_start[at + 1] - b->from_start[at])
      return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    if (memcmp(a->from + a->from_start[at], b->from + b->from_start[at],
               count * sizeof(size_t)))
      return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    struct work *was = old->steps[at].work, *is = new->steps[at].work;
    if (was->kind == LAUNCH && was->context != is->context)
      return CU_GRAPH_EXEC_UPDATE_ERROR_UNSUPPORTED_FUNCTION_CHANGE;
    if (was->kind == ALLOCATE || was->kind == FREE)
      if (was->memory.address != is->memory.address)
        return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
  }
  return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

CUresult CUDAAPI cuGraphExecUpdate(CUgraphExec handle, CUgraph graph_handle,
                                   CUgraphExecUpdateResultInfo *info) {
  ENTER_CONTEXT(context);
  struct exec *exec = find_exec(handle);
  struct graph *graph = find_graph(graph_handle);
  if (!exec || !graph || !info) return CUDA_ERROR_INVALID_VALUE;
  *info = (CUgraphExecUpdateResultInfo){CU_GRAPH_EXEC_UPDATE_ERROR, NULL, NULL};
  struct program *program = new_program(graph);
  if (!program) return CUDA_ERROR_INVALID_VALUE;
  size_t where = graph->count;
  info->result = compare(exec->program, program, &where);
  if (info->result) {
    if (where < graph->count) info->errorNode = (CUgraphNode)graph->nodes[where];
    drop_program(program);
    return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
  }
  for (size_t at = 0; at < program->count;
       at++) { /* it stays the exec of its first graph's nodes */
    program->steps[at].node = exec->program->steps[at].node;
    program->steps[at].disabled = exec->program->steps[at].disabled;
  }
  program->auto_free = exec->program->auto_free;
  drop_program(exec->program);
  exec->program = program;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphExecChildGraphNodeSetParams(CUgraphExec handle,
                                                    CUgraphNode node_handle,
                                                    CUgraph graph_handle) {
  ENTER_CONTEXT(context);
  struct node *node = find_node(node_handle);
  struct graph *graph = find_graph(graph_handle);
  struct exec *exec = find_exec(handle);
  struct step *step = exec && node && graph ? find_step(&exec->program, node->id) : NULL;
  if (!step || step->work->kind != PROGRAM) return CUDA_ERROR_INVALID_VALUE;
  struct work *work = work_of_child(graph);
  size_t where = 0;
  if (!work) return CUDA_ERROR_INVALID_VALUE;
  if (compare(step->work->program, work->program, &where)) {
    drop_work(work);
    return CUDA_ERROR_INVALID_VALUE;
  }
  drop_work(step->work);
  step->work = work;
  return CUDA_SUCCESS;
}
