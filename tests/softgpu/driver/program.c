/* Programs: graphs in an order, of the orders that are allowed the most surprising one.
 *
 * No program changes while a launch of it is in a queue: whoever sets parameters gets a copy.
 */
#include "graphs.h"

static struct topology *new_topology(const struct graph *graph) {
  struct topology *topology = calloc(1, sizeof *topology);
  size_t edges = 0;
  for (size_t at = 0; at < graph->count; at++) edges += graph->nodes[at]->from_count;
  topology->references = 1;
  topology->order = malloc((graph->count + 1) * sizeof(size_t));
  topology->from_start = malloc((graph->count + 1) * sizeof(size_t));
  topology->from = malloc((edges + 1) * sizeof(size_t));
  edges = 0;
  for (size_t at = 0; at < graph->count; at++) {
    topology->from_start[at] = edges;
    for (size_t n = 0; n < graph->nodes[at]->from_count; n++) {
      size_t before = 0;
      while (graph->nodes[before] != graph->nodes[at]->from[n]) before++;
      topology->from[edges++] = before;
    }
  }
  topology->from_start[graph->count] = edges;
  return topology;
}

static void drop_topology(struct topology *topology) {
  if (--topology->references) return;
  free(topology->order);
  free(topology->from_start);
  free(topology->from);
  free(topology);
}

/* Of the nodes that are ready the newest comes first, so a dependency that is missing shows.
 * False: a circle. */
static bool find_order(struct topology *topology, size_t count) {
  size_t *missing = calloc(count + 1, sizeof *missing), done = 0;
  bool *placed = calloc(count + 1, sizeof *placed);
  for (size_t at = 0; at < count; at++)
    missing[at] = topology->from_start[at + 1] - topology->from_start[at];
  for (size_t at = count; at-- > 0;) {
    if (placed[at] || missing[at]) continue;
    placed[at] = true;
    topology->order[done++] = at;
    for (size_t later = 0; later < count; later++)
      for (size_t n = topology->from_start[later]; n < topology->from_start[later + 1]; n++)
        if (topology->from[n] == at) missing[later]--;
    at = count; /* look from the newest again */
  }
  free(missing);
  free(placed);
  return done == count;
}

/* ---- programs ---- */
struct program *keep_program(struct program *program) {
  program->references++;
  return program;
}

void drop_program(struct program *program) {
  if (!program || --program->references) return;
  for (size_t at = 0; at < program->count; at++) drop_work(program->steps[at].work);
  drop_topology(program->topology);
  drop_objects(program->objects, program->object_count);
  free(program->steps);
  free(program);
}

struct work *work_of_child(struct graph *child) {
  struct program *program = new_program(child);
  if (!program) return NULL;
  struct context *context = current_context();
  struct work *work = new_work(PROGRAM, context, 0);
  work->program = program;
  return work;
}

struct program *new_program(struct graph *graph) {
  struct program *program = calloc(1, sizeof *program);
  program->references = 1;
  program->count = graph->count;
  program->steps = calloc(graph->count + 1, sizeof *program->steps);
  program->topology = new_topology(graph);
  program->objects = keep_objects(graph->objects, graph->object_count);
  program->object_count = graph->object_count;
  bool complete = find_order(program->topology, graph->count);
  for (size_t at = 0; at < graph->count && complete; at++) {
    struct node *node = graph->nodes[at];
    struct work *work = node->child ? work_of_child(node->child) : keep_work(node->work);
    program->steps[at] = (struct step){node->id, node->type, work, false};
    complete = work;
    if (!work) break;
    program->has_events |= work->kind == RECORD || work->kind == WAIT;
    if (work->kind == PROGRAM) program->has_events |= work->program->has_events;
  }
  if (complete) return program;
  drop_program(program);
  return NULL;
}

/* Memory that the last launch left goes, if the graph was made so. */
static void free_what_is_left(struct program *program) {
  for (size_t at = 0; at < program->count; at++) {
    struct work *work = program->steps[at].work;
    if (work->kind != ALLOCATE) continue;
    uint64_t start = work->memory.address;
    if (find_state(start, 1, SOFTGPU_ALLOCATED, SOFTGPU_WRITTEN) == start)
      mark(start, work->memory.size, SOFTGPU_FREED);
  }
}

void run_program(struct program *program) {
  if (program->auto_free) free_what_is_left(program);
  for (size_t at = 0; at < program->count; at++) {
    struct step *step = &program->steps[program->topology->order[at]];
    if (!step->disabled) run_work(step->work);
  }
}

static struct program *copy_program(struct program *program) {
  struct program *copy = malloc(sizeof *copy);
  *copy = *program;
  copy->references = 1;
  copy->steps = malloc((program->count + 1) * sizeof *copy->steps);
  memcpy(copy->steps, program->steps, program->count * sizeof *copy->steps);
  for (size_t at = 0; at < program->count; at++) keep_work(copy->steps[at].work);
  copy->topology->references++;
  copy->objects = keep_objects(program->objects, program->object_count);
  return copy;
}

/* A program that nobody else has, in place of the given one. */
static struct program *own_program(struct program *program) {
  if (program->references == 1) return program;
  struct program *copy = copy_program(program);
  drop_program(program);
  return copy;
}

struct step *find_step(struct program **program, unsigned long long node) {
  *program = own_program(*program);
  for (size_t at = 0; at < (*program)->count; at++)
    if ((*program)->steps[at].node == node) return &(*program)->steps[at];
  for (size_t at = 0; at < (*program)->count; at++) {
    struct step *step = &(*program)->steps[at];
    if (step->work->kind != PROGRAM) continue;
    struct work *work = new_work(PROGRAM, step->work->context, 0);
    work->program = keep_program(step->work->program);
    drop_work(step->work);
    step->work = work;
    struct step *found = find_step(&work->program, node);
    if (found) return found;
  }
  return NULL;
}
