/* Modules: PTX that is given to the engine, and what the engine tells of it. */
#include <stdio.h>
#include "driver.h"

#ifndef SOFTGPU_ROOT
#error "the folder that holds the package `tests` is not given"
#endif

softgpu_launch launch_callback;
static softgpu_load load_callback;
static softgpu_unload unload_callback;
static struct module *modules;

void softgpu_register(softgpu_load load, softgpu_unload unload, softgpu_launch launch) {
  load_callback = load;
  unload_callback = unload;
  launch_callback = launch;
}

/* Where nobody has registered, this process's Python imports the engine, which does. */
static CUresult find_engine(void) {
  if (load_callback) return CUDA_SUCCESS;
  const char *said = option("SOFTGPU_ROOT"), *root = said ? said : SOFTGPU_ROOT;
  char text[8192];
  snprintf(text, sizeof text,
           "import sys\nif r'%s' not in sys.path: sys.path.append(r'%s')\nimport "
           "tests.softgpu.engine\n",
           root, root);
  if (python_run(text) && load_callback) return CUDA_SUCCESS;
  report("no engine runs PTX here: tests.softgpu.engine cannot be imported from %s", root);
  return CUDA_ERROR_NOT_INITIALIZED;
}

static struct module *module_by_id(uint64_t id) {
  struct module *module = modules;
  while (module && module->id != id) module = module->next;
  return module;
}

struct kernel *kernel_of(struct module *module, const char *name) {
  struct kernel *kernel = module ? module->kernels : NULL;
  while (kernel && strcmp(kernel->name, name)) kernel = kernel->next;
  return kernel;
}

static struct kernel *new_kernel(struct module *module, const char *name) {
  struct kernel *kernel = calloc(1, sizeof *kernel);
  kernel->module = module;
  kernel->name = strdup(name);
  kernel->next = module->kernels;
  kernel->attributes[CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK] = 1024;
  for (int device = 0; device < MOST_DEVICES; device++) {
    kernel->most_shared[device] = 48 << 10;
    kernel->carveout[device] = -1;
  }
  module->kernels = kernel;
  add_handle(kernel, KERNEL);
  return kernel;
}

/* ---- what the engine tells while it loads ---- */
static uint32_t *copied(const uint32_t *numbers, uint32_t count) {
  uint32_t *copy = malloc((count + 1) * sizeof *copy);
  if (count) memcpy(copy, numbers, count * sizeof *copy);
  return copy;
}

void softgpu_parameters(uint64_t id, const char *entry, uint32_t count, const uint32_t *sizes,
                        const uint32_t *alignments) {
  take_lock();
  struct module *module = module_by_id(id);
  if (module && !kernel_of(module, entry)) {
    struct kernel *kernel = new_kernel(module, entry);
    kernel->parameter_count = count;
    kernel->sizes = copied(sizes, count);
    kernel->offsets = copied(sizes, count);
    uint32_t at = 0;
    for (uint32_t n = 0; n < count; n++) {
      at = (at + alignments[n] - 1) / alignments[n] * alignments[n];
      kernel->offsets[n] = at;
      at += sizes[n];
    }
  }
  release_lock();
}

void softgpu_attribute(uint64_t id, const char *entry, int attribute, int value) {
  take_lock();
  struct kernel *kernel = kernel_of(module_by_id(id), entry);
  if (kernel && attribute >= 0 && attribute < 16) kernel->attributes[attribute] = value;
  release_lock();
}

uint64_t softgpu_global(uint64_t id, int device, const char *name, uint64_t size) {
  take_lock();
  struct module *module = module_by_id(id);
  struct block *block = module && size ? reserve(device, size, OF_MODULE, NULL) : NULL;
  uint64_t address = 0;
  if (block) {
    address = block->start;
    block->context = module->context ? module->context : primary_context(device);
    memset((void *)address, 0, size);
    mark(address, size, SOFTGPU_WRITTEN);
    struct global *global = malloc(sizeof *global);
    *global = (struct global){strdup(name), device, address, size, module->globals};
    module->globals = global;
  }
  release_lock();
  return address;
}

/* Where the caller wants to read why its PTX was refused. */
static void write_log(unsigned count, const CUjit_option *names, void **values,
                      const char *text) {
  char *buffer = NULL;
  size_t room = 0;
  for (unsigned at = 0; at < count; at++) {
    if (names[at] == CU_JIT_ERROR_LOG_BUFFER) buffer = values[at];
    if (names[at] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) room = (size_t)(uintptr_t)values[at];
  }
  if (buffer && room) snprintf(buffer, room, "%s", text);
}

/* ---- loading ---- */
CUresult load_on(struct module *module, int device) {
  while (module->state[device] == LOADING && python_lives())
    wait_for_progress(); /* another thread loads it */
  if (module->state[device] == LOADED) return CUDA_SUCCESS;
  TRY(find_engine());
  if (!begin_callback()) return CUDA_ERROR_DEINITIALIZED;
  module->state[device] = LOADING;
  int error = load_callback(module->id, module->text, device);
  take_lock();
  module->state[device] = error ? NOT_LOADED : LOADED;
  tell_progress();
  return (CUresult)error;
}

void unload_module(struct module *module) {
  for (struct kernel *kernel = module->kernels; kernel; kernel = kernel->next)
    drop_handle(kernel);
  while (module->globals) {
    struct global *global = module->globals;
    struct block *block = block_at(global->address);
    module->globals = global->next;
    if (block) host_free(block, NULL), end_block(block->start, block->size, block->id);
    free(global->name);
    free(global);
  }
  module->unloaded = true; /* what is queued still knows it */
  if (!unload_callback || !begin_callback()) return;
  unload_callback(module->id);
  take_lock();
}

void unload_all_of(struct context *context) {
  for (struct module *module = modules; module; module = module->next)
    if (module->context == context && !module->unloaded) {
      drop_handle(module);
      unload_module(module);
    }
}

CUresult new_module(void **out, const char *code, struct context *context, unsigned count,
                    const CUjit_option *names, void **values) {
  static unsigned long long next_id = 1;
  char why[256];
  if (!out || !code) return CUDA_ERROR_INVALID_VALUE;
  CUresult error = check_code(code, why, sizeof why);
  if (error) {
    report("%s", why);
    write_log(count, names, values, why);
    return error;
  }
  struct module *module = calloc(1, sizeof *module);
  module->id = next_id++;
  module->text = strdup(code);
  module->context = context;
  module->next = modules;
  modules = module;
  struct context *current = context ? context : current_context();
  error = load_on(module, current ? current->device : 0);
  if (error) {
    unload_module(module);
    return error;
  }
  add_handle(module, MODULE);
  *out = module;
  return CUDA_SUCCESS;
}

struct module *find_module(const void *handle) {
  return is_handle(handle, MODULE) ? (struct module *)handle : NULL;
}

struct kernel *find_kernel(const void *handle) {
  return is_handle(handle, KERNEL) ? (struct kernel *)handle : NULL;
}
