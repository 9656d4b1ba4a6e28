/* Modules and libraries: PTX that the driver would take, given to the engine; their kernels.
 */
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

static struct kernel *kernel_of(struct module *module, const char *name) {
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
    kernel->alignments = copied(alignments, count);
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

/* ---- what a driver refuses ---- */
static const struct {
  int release, major, minor; /* a release of CUDA, and the newest PTX that its driver takes */
} PTX_OF[] = {{11080, 7, 8}, {12000, 8, 0}, {12010, 8, 1}, {12020, 8, 2},
              {12030, 8, 3}, {12040, 8, 4}, {12050, 8, 5}, {12060, 8, 5},
              {12070, 8, 6}, {12080, 8, 7}, {12090, 8, 8}, {13000, 9, 0}};

static int newest_ptx(void) { /* 10 * major + minor */
  if (options.driver > 13000) return 90 + options.driver % 1000 / 10;
  size_t at = sizeof PTX_OF / sizeof *PTX_OF - 1;
  while (at && PTX_OF[at].release > options.driver) at--;
  return 10 * PTX_OF[at].major + PTX_OF[at].minor;
}

/* A directive at the start of a line that is no comment. */
static const char *directive(const char *text, const char *name) {
  for (const char *line = text; line; line = strchr(line, '\n')) {
    line += strspn(line, " \t\r\n");
    if (!strncmp(line, name, strlen(name))) return line + strlen(name);
  }
  return NULL;
}

static bool target_fits(const char *target) {
  char suffix = 0;
  int capability = 0;
  if (!target || sscanf(target, " sm_%d%c", &capability, &suffix) < 1) return false;
  if (suffix == 'a') return capability == options.capability;
  if (suffix == 'f')
    return capability / 10 == options.capability / 10 && capability <= options.capability;
  return capability <= options.capability;
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

static CUresult check_code(const char *code, char *why, size_t room) {
  uint32_t magic;
  memcpy(&magic, code, sizeof magic);
  if (magic == 0x464c457f || magic == 0xba55ed50 || magic == 0x466243b1) {
    snprintf(why, room,
             "the software GPU runs PTX and no machine code (a cubin or fatbin was given)");
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  const char *version = directive(code, ".version"), *target = directive(code, ".target");
  int major, minor, newest = newest_ptx();
  if (!version || !target || sscanf(version, " %d.%d", &major, &minor) != 2) {
    snprintf(why, room, "the code is no PTX: it has no .version or no .target");
    return CUDA_ERROR_INVALID_PTX;
  }
  if (10 * major + minor > newest) {
    snprintf(why, room, "PTX .version %d.%d; a driver of CUDA %d.%d takes up to %d.%d", major,
             minor, options.driver / 1000, options.driver % 1000 / 10, newest / 10,
             newest % 10);
    return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
  }
  if (!target_fits(target)) {
    snprintf(why, room,
             "PTX .target%.12s does not run on a device of compute capability %d.%d", target,
             options.capability / 10, options.capability % 10);
    return CUDA_ERROR_INVALID_PTX; /* the driver's ptxas: SM version of .target is higher */
  }
  return CUDA_SUCCESS;
}

/* ---- loading ---- */
CUresult load_on(struct module *module, int device) {
  if (module->loaded[device]) return CUDA_SUCCESS;
  TRY(find_engine());
  module->loaded[device] = true;
  release_lock();
  int error = load_callback(module->id, module->text, device);
  take_lock();
  if (error) module->loaded[device] = false;
  return (CUresult)error;
}

static void unload(struct module *module) {
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
  if (!unload_callback) return;
  release_lock();
  unload_callback(module->id);
  take_lock();
}

static CUresult new_module(void **out, const char *code, struct context *context,
                           unsigned count, const CUjit_option *names, void **values) {
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
    unload(module);
    return error;
  }
  add_handle(module, MODULE);
  *out = module;
  return CUDA_SUCCESS;
}

static CUresult read_file(const char *path, char **text) {
  FILE *file = path ? fopen(path, "rb") : NULL;
  if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  *text = calloc(1, (size_t)size + 8);
  size_t read = fread(*text, 1, (size_t)size, file);
  fclose(file);
  return read == (size_t)size ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

static struct module *find_module(const void *handle) {
  return is_handle(handle, MODULE) ? (struct module *)handle : NULL;
}

struct kernel *find_kernel(const void *handle) {
  return is_handle(handle, KERNEL) ? (struct kernel *)handle : NULL;
}

/* ---- libraries ---- */
CUresult CUDAAPI cuLibraryLoadData(CUlibrary *out, const void *code, CUjit_option *names,
                                   void **values, unsigned int count,
                                   CUlibraryOption *library_names, void **library_values,
                                   unsigned int library_count) {
  ENTER;
  (void)library_names, (void)library_values, (void)library_count; /* hints on loading */
  if (current_context() && current_context()->fault) return current_context()->fault;
  return new_module((void **)out, code, NULL, count, names, values);
}

CUresult CUDAAPI cuLibraryLoadFromFile(CUlibrary *out, const char *path, CUjit_option *names,
                                       void **values, unsigned int count,
                                       CUlibraryOption *library_names, void **library_values,
                                       unsigned int library_count) {
  char *text;
  TRY(read_file(path, &text));
  CUresult error = cuLibraryLoadData(out, text, names, values, count, library_names,
                                     library_values, library_count);
  free(text);
  return error;
}

CUresult CUDAAPI cuLibraryUnload(CUlibrary handle) {
  ENTER;
  struct module *module = find_module(handle);
  if (!module || module->context) return CUDA_ERROR_INVALID_HANDLE;
  drop_handle(module);
  unload(module);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLibraryGetKernel(CUkernel *out, CUlibrary handle, const char *name) {
  ENTER;
  struct module *module = find_module(handle);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  if (!out || !name) return CUDA_ERROR_INVALID_VALUE;
  struct kernel *kernel = kernel_of(module, name);
  *out = (CUkernel)kernel;
  return kernel ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

static unsigned count_kernels(const struct module *module) {
  unsigned count = 0;
  for (struct kernel *kernel = module->kernels; kernel; kernel = kernel->next) count++;
  return count;
}

CUresult CUDAAPI cuLibraryGetKernelCount(unsigned int *count, CUlibrary handle) {
  ENTER;
  struct module *module = find_module(handle);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  *count = count_kernels(module);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLibraryEnumerateKernels(CUkernel *out, unsigned int most,
                                           CUlibrary handle) {
  ENTER;
  struct module *module = find_module(handle);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  for (struct kernel *kernel = module->kernels; kernel && most--; kernel = kernel->next)
    *out++ = (CUkernel)kernel;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLibraryGetModule(CUmodule *out, CUlibrary handle) {
  ENTER_CONTEXT(context);
  struct module *module = find_module(handle);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  TRY(load_on(module, context->device));
  *out = (CUmodule)module;
  return CUDA_SUCCESS;
}

static CUresult get_global(CUdeviceptr *address, size_t *size, struct module *module,
                           const char *name, struct context *context) {
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  if (!name) return CUDA_ERROR_INVALID_VALUE;
  TRY(load_on(module, context->device));
  for (struct global *global = module->globals; global; global = global->next)
    if (global->device == context->device && !strcmp(global->name, name)) {
      if (address) *address = global->address;
      if (size) *size = global->size;
      return CUDA_SUCCESS;
    }
  return CUDA_ERROR_NOT_FOUND;
}

CUresult CUDAAPI cuLibraryGetGlobal(CUdeviceptr *address, size_t *size, CUlibrary handle,
                                    const char *name) {
  ENTER_CONTEXT(context);
  return get_global(address, size, find_module(handle), name, context);
}

/* ---- modules ---- */
CUresult CUDAAPI cuModuleLoadDataEx(CUmodule *out, const void *code, unsigned int count,
                                    CUjit_option *names, void **values) {
  ENTER_CONTEXT(context);
  return new_module((void **)out, code, context, count, names, values);
}

CUresult CUDAAPI cuModuleLoadData(CUmodule *out, const void *code) {
  return cuModuleLoadDataEx(out, code, 0, NULL, NULL);
}

CUresult CUDAAPI cuModuleLoadFatBinary(CUmodule *out, const void *code) {
  return cuModuleLoadData(out, code);
}

CUresult CUDAAPI cuModuleLoad(CUmodule *out, const char *path) {
  char *text;
  TRY(read_file(path, &text));
  CUresult error = cuModuleLoadData(out, text);
  free(text);
  return error;
}

CUresult CUDAAPI cuModuleUnload(CUmodule handle) {
  ENTER_CONTEXT(context);
  struct module *module = find_module(handle);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  if (!module->context) return CUDA_ERROR_NOT_PERMITTED; /* it is its library's */
  drop_handle(module);
  unload(module);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction *out, CUmodule handle, const char *name) {
  ENTER_CONTEXT(context);
  struct module *module = find_module(handle);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  if (!out || !name) return CUDA_ERROR_INVALID_VALUE;
  struct kernel *kernel = kernel_of(module, name);
  *out = (CUfunction)kernel;
  return kernel ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult CUDAAPI cuModuleGetFunctionCount(unsigned int *count, CUmodule handle) {
  ENTER;
  struct module *module = find_module(handle);
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  *count = count_kernels(module);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetGlobal(CUdeviceptr *address, size_t *size, CUmodule handle,
                                   const char *name) {
  ENTER_CONTEXT(context);
  return get_global(address, size, find_module(handle), name, context);
}

CUresult CUDAAPI cuModuleGetLoadingMode(CUmoduleLoadingMode *mode) {
  ENTER;
  const char *said = option("CUDA_MODULE_LOADING");
  *mode = said && !strcmp(said, "EAGER") ? CU_MODULE_EAGER_LOADING : CU_MODULE_LAZY_LOADING;
  return CUDA_SUCCESS;
}
