/* What a device does: kernels, copies, memsets, host functions, memory that comes and goes. */
#include <stdio.h>
#include <time.h>
#include "driver.h"

struct work *new_work(enum work_kind kind, struct context *context, size_t more) {
  struct work *work = calloc(1, sizeof *work + more);
  work->kind = kind;
  work->context = context;
  work->references = 1;
  return work;
}

struct work *keep_work(struct work *work) {
  if (work) work->references++;
  return work;
}

/* A graph's memory ends with the last graph that has it, but not while it is allocated. */
static void end_graph_memory(const struct work *work) {
  struct block *block = block_at(work->memory.address);
  uint64_t start = work->memory.address;
  bool there = find_state(start, 1, SOFTGPU_ALLOCATED, SOFTGPU_WRITTEN) == start;
  if (!block || block->origin != OF_GRAPH || there) return;
  host_free(block, NULL);
  end_block(block->start, block->size, block->id);
}

void drop_work(struct work *work) {
  if (!work || --work->references) return;
  if (work->kind == ALLOCATE && work->memory.of_graph) end_graph_memory(work);
  if (work->kind == COPY) free(work->copy.staged);
  if (work->kind == RECORD || work->kind == WAIT) drop_event(work->event);
  if (work->kind == PROGRAM) drop_program(work->program);
  free(work);
}

static CUresult run_launch(const struct work *work) {
  struct kernel *kernel = work->launch.kernel;
  int device = work->context->device;
  if (kernel->module->unloaded) {
    report("the kernel %s runs after its module was unloaded", kernel->name);
    return CUDA_ERROR_LAUNCH_FAILED;
  }
  if (options.skip) return CUDA_SUCCESS;
  if (!begin_callback()) return CUDA_ERROR_DEINITIALIZED;
  int error = launch_callback(kernel->module->id, kernel->name, device, work->launch.dims,
                              work->launch.shared, work->launch.params,
                              (uint32_t)kernel->most_shared[device]);
  take_lock();
  return (CUresult)error;
}

/* A range that a copy or memset touches must be there when the stream gets to it. */
static CUresult check_range(const char *what, uint64_t start, uint64_t size, bool reads) {
  if (!in_window(start) || options.skip) return CUDA_SUCCESS;
  uint64_t at = find_state(start, size, SOFTGPU_UNALLOCATED, SOFTGPU_FREED);
  char text[256];
  if (at != UINT64_MAX) {
    release_lock();
    softgpu_describe(at, text, sizeof text);
    take_lock();
    report("%s of %llu bytes at 0x%llx: %s", what, (unsigned long long)size,
           (unsigned long long)start, text);
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  at = reads ? find_state(start, size, SOFTGPU_ALLOCATED, SOFTGPU_ALLOCATED) : UINT64_MAX;
  if (at != UINT64_MAX)
    report("%s of %llu bytes at 0x%llx: byte %llu was never written", what,
           (unsigned long long)size, (unsigned long long)start,
           (unsigned long long)(at - start));
  return CUDA_SUCCESS;
}

static CUresult copy_row(uint64_t to, uint64_t from, size_t size) {
  TRY(check_range("a copy reads", from, size, !in_window(to)));
  TRY(check_range("a copy writes", to, size, false));
  memmove((void *)to, (const void *)from, size);
  if (!in_window(to)) return CUDA_SUCCESS;
  if (in_window(from))
    memmove(shadow + (to - window_base), shadow + (from - window_base), size);
  else mark(to, size, SOFTGPU_WRITTEN);
  return CUDA_SUCCESS;
}

static CUresult run_copy(const struct work *work) {
  struct side to = work->copy.to, from = work->copy.from;
  size_t width = work->copy.width, height = work->copy.height;
  if (work->copy.staged) from = (struct side){(uint64_t)work->copy.staged, width, height};
  for (size_t slice = 0; slice < work->copy.depth; slice++)
    for (size_t row = 0; row < height; row++)
      TRY(copy_row(to.address + (slice * to.rows + row) * to.pitch,
                   from.address + (slice * from.rows + row) * from.pitch, width));
  return CUDA_SUCCESS;
}

static CUresult run_set(const struct work *work) {
  size_t element = work->set.element, bytes = work->set.width * element;
  for (size_t row = 0; row < work->set.height; row++) {
    uint64_t start = work->set.address + row * work->set.pitch;
    TRY(check_range("a memset", start, bytes, false));
    if (element == 1) memset((void *)start, (int)work->set.value, bytes);
    else
      for (size_t at = 0; at < bytes; at += element)
        memcpy((void *)(start + at), &work->set.value, element);
    mark(start, bytes, SOFTGPU_WRITTEN);
  }
  return CUDA_SUCCESS;
}

static void run_host_call(const struct work *work) {
  if (!begin_callback()) return;
  inside_host_function = true;
  if (work->host.callback)
    work->host.callback(work->host.stream, work->context->fault, work->host.data);
  else work->host.function(work->host.data);
  inside_host_function = false;
  take_lock();
}

/* Memory of a graph comes and goes with each launch of it. */
static CUresult run_memory(const struct work *work) {
  uint64_t start = work->memory.address, size = work->memory.size;
  bool there = find_state(start, 1, SOFTGPU_ALLOCATED, SOFTGPU_WRITTEN) == start;
  if (work->kind == ALLOCATE) {
    if (work->memory.of_graph && there)
      report("memory of a graph is allocated again before it was freed");
    if (!options.skip) make_fresh(start, size);
    if (share_of(start) < 0) mark(start, size, SOFTGPU_WRITTEN); /* the host may write it */
  } else if (work->memory.of_graph) {
    if (!there) report("memory of a graph is freed where it is not allocated");
    mark(start, size, SOFTGPU_FREED);
  } else {
    end_block(start, size, work->memory.id);
  }
  return CUDA_SUCCESS;
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* After a fault nothing touches memory any more, but what is in order stays so. */
void run_work(struct work *work) {
  CUresult *fault = &work->context->fault, error = CUDA_SUCCESS;
  switch (work->kind) {
    case LAUNCH:
      if (!*fault) error = run_launch(work);
      break;
    case COPY:
      if (!*fault) error = run_copy(work);
      break;
    case SET:
      if (!*fault) error = run_set(work);
      break;
    case HOST_CALL:
      if (!*fault || work->host.callback) run_host_call(work);
      break;
    case ALLOCATE:
    case FREE: error = run_memory(work); break;
    case RECORD: work->event->seconds = seconds_now(); break;
    case PROGRAM: run_program(work->program); break;
    case WAIT:
    case NOTHING: break;
  }
  if (error && !*fault) *fault = error;
}
