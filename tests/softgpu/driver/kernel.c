/* What can be asked of a kernel, as CUkernel or as CUfunction: attributes, parameters,
 * occupancy. */
#include "driver.h"

static int most_shared(int device) {
  return device_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, device);
}

static int ptx_number(const struct kernel *kernel, const char *name) {
  const char *at = strstr(kernel->module->text, name);
  if (!at) return 0;
  at += strcspn(at, "0123456789");
  char *rest;
  long number = strtol(at, &rest, 10);
  return *rest == '.' ? (int)(10 * number + strtol(rest + 1, NULL, 10)) : (int)number;
}

static CUresult get_attribute(int *value, CUfunction_attribute attribute,
                              struct kernel *kernel, int device) {
  if (!value) return CUDA_ERROR_INVALID_VALUE;
  switch ((int)attribute) {
    case CU_FUNC_ATTRIBUTE_PTX_VERSION: *value = ptx_number(kernel, ".version"); break;
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = options.capability; break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = kernel->most_shared[device];
      break;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      *value = kernel->carveout[device];
      break;
    default:
      if (attribute < 0 || attribute >= CU_FUNC_ATTRIBUTE_MAX) return CUDA_ERROR_INVALID_VALUE;
      *value = attribute < 16 ? kernel->attributes[attribute] : 0;
  }
  return CUDA_SUCCESS;
}

static CUresult set_attribute(CUfunction_attribute attribute, int value, struct kernel *kernel,
                              int device) {
  switch ((int)attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: {
      int fixed = kernel->attributes[CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES];
      if (value < 0 || value + fixed > most_shared(device)) return CUDA_ERROR_INVALID_VALUE;
      kernel->most_shared[device] = value;
      return CUDA_SUCCESS;
    }
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      if (value < -1 || value > 100) return CUDA_ERROR_INVALID_VALUE;
      kernel->carveout[device] = value;
      return CUDA_SUCCESS;
    default: return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult CUDAAPI cuKernelGetAttribute(int *value, CUfunction_attribute attribute,
                                      CUkernel handle, CUdevice device) {
  ENTER;
  struct kernel *kernel = find_kernel(handle);
  if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
  TRY(check_device(device));
  TRY(load_on(kernel->module, device));
  return get_attribute(value, attribute, kernel, device);
}

CUresult CUDAAPI cuKernelSetAttribute(CUfunction_attribute attribute, int value,
                                      CUkernel handle, CUdevice device) {
  ENTER;
  struct kernel *kernel = find_kernel(handle);
  if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
  TRY(check_device(device));
  return set_attribute(attribute, value, kernel, device);
}

CUresult CUDAAPI cuFuncGetAttribute(int *value, CUfunction_attribute attribute,
                                    CUfunction handle) {
  ENTER_CONTEXT(context);
  struct kernel *kernel = find_kernel(handle);
  return kernel ? get_attribute(value, attribute, kernel, context->device)
                : CUDA_ERROR_INVALID_HANDLE;
}

CUresult CUDAAPI cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute,
                                    int value) {
  ENTER_CONTEXT(context);
  struct kernel *kernel = find_kernel(handle);
  return kernel ? set_attribute(attribute, value, kernel, context->device)
                : CUDA_ERROR_INVALID_HANDLE;
}

CUresult CUDAAPI cuKernelSetCacheConfig(CUkernel handle, CUfunc_cache config,
                                        CUdevice device) {
  ENTER;
  (void)config; /* a hint */
  TRY(check_device(device));
  return find_kernel(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult CUDAAPI cuFuncSetCacheConfig(CUfunction handle, CUfunc_cache config) {
  ENTER_CONTEXT(context);
  (void)config; /* a hint */
  return find_kernel(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* ---- names, where it comes from, parameters ---- */
CUresult CUDAAPI cuKernelGetFunction(CUfunction *out, CUkernel handle) {
  ENTER_CONTEXT(context);
  struct kernel *kernel = find_kernel(handle);
  if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
  TRY(load_on(kernel->module, context->device));
  *out = (CUfunction)kernel;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuKernelGetLibrary(CUlibrary *out, CUkernel handle) {
  ENTER;
  struct kernel *kernel = find_kernel(handle);
  if (!kernel || kernel->module->context) return CUDA_ERROR_INVALID_HANDLE;
  *out = (CUlibrary)kernel->module;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuFuncGetModule(CUmodule *out, CUfunction handle) {
  ENTER_CONTEXT(context);
  struct kernel *kernel = find_kernel(handle);
  if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
  *out = (CUmodule)kernel->module;
  return CUDA_SUCCESS;
}

static CUresult get_name(const char **name, const void *handle) {
  struct kernel *kernel = find_kernel(handle);
  if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
  if (!name) return CUDA_ERROR_INVALID_VALUE;
  *name = kernel->name;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuKernelGetName(const char **name, CUkernel handle) {
  ENTER;
  return get_name(name, handle);
}

CUresult CUDAAPI cuFuncGetName(const char **name, CUfunction handle) {
  ENTER;
  return get_name(name, handle);
}

static CUresult get_parameter(const void *handle, size_t number, size_t *offset,
                              size_t *size) {
  struct kernel *kernel = find_kernel(handle);
  if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
  if (number >= kernel->parameter_count || !offset) return CUDA_ERROR_INVALID_VALUE;
  *offset = kernel->offsets[number];
  if (size) *size = kernel->sizes[number];
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuKernelGetParamInfo(CUkernel handle, size_t number, size_t *offset,
                                      size_t *size) {
  ENTER;
  return get_parameter(handle, number, offset, size);
}

CUresult CUDAAPI cuFuncGetParamInfo(CUfunction handle, size_t number, size_t *offset,
                                    size_t *size) {
  ENTER;
  return get_parameter(handle, number, offset, size);
}

CUresult cuKernelGetParamCount(CUkernel handle, size_t *count) {
  ENTER;
  struct kernel *kernel = find_kernel(handle);
  if (!kernel || !count) return kernel ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
  *count = kernel->parameter_count;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction handle) {
  ENTER_CONTEXT(context);
  struct kernel *kernel = find_kernel(handle);
  if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
  bool loaded = kernel->module->state[context->device] == LOADED;
  *state = loaded ? CU_FUNCTION_LOADING_STATE_LOADED : CU_FUNCTION_LOADING_STATE_UNLOADED;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuFuncLoad(CUfunction handle) {
  ENTER_CONTEXT(context);
  struct kernel *kernel = find_kernel(handle);
  return kernel ? load_on(kernel->module, context->device) : CUDA_ERROR_INVALID_HANDLE;
}

/* ---- occupancy ---- */
int registers_fit(const struct kernel *kernel, int device, int threads, size_t shared) {
  int warps = (threads + 31) / 32, registers = kernel->attributes[CU_FUNC_ATTRIBUTE_NUM_REGS];
  size_t all = shared + (size_t)kernel->attributes[CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES];
  if (options.capability >= 80) all += 1024; /* the system's own in each block */
  int blocks = device_attribute(CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, device);
  int by_threads =
      device_attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, device) /
      (32 * warps);
  int by_shared = (int)((size_t)device_attribute(
                            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, device) /
                        (all ? all : 1));
  int of_warp = (registers * 32 + 255) / 256 * 256; /* they are given out by 256 */
  int by_registers = registers ? 65536 / (of_warp * warps) : blocks;
  if (by_threads < blocks) blocks = by_threads;
  if (all && by_shared < blocks) blocks = by_shared;
  return by_registers < blocks ? by_registers : blocks;
}

CUresult CUDAAPI cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction handle,
                                                             int threads, size_t shared) {
  ENTER_CONTEXT(context);
  struct kernel *kernel = find_kernel(handle);
  if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
  if (!blocks || threads < 1) return CUDA_ERROR_INVALID_VALUE;
  *blocks = threads > 1024 ? 0 : registers_fit(kernel, context->device, threads, shared);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *blocks, CUfunction handle, int threads, size_t shared, unsigned int flags) {
  if (flags & ~1u) return CUDA_ERROR_INVALID_VALUE;
  return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, handle, threads, shared);
}

CUresult CUDAAPI cuOccupancyMaxPotentialBlockSize(int *grid, int *block, CUfunction handle,
                                                  CUoccupancyB2DSize shared_of, size_t shared,
                                                  int limit) {
  ENTER_CONTEXT(context);
  struct kernel *kernel = find_kernel(handle);
  if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
  int most = kernel->attributes[CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK], best = 0;
  if (limit > 0 && limit < most) most = limit;
  for (int threads = most; threads > 0; threads -= threads % 32 ? threads % 32 : 32) {
    size_t bytes = shared_of ? shared_of(threads) : shared;
    int blocks = registers_fit(kernel, context->device, threads, bytes);
    if (blocks * threads <= best) continue;
    best = blocks * threads;
    *block = threads;
    *grid =
        blocks * device_attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, context->device);
  }
  return best ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *block,
                                                           CUfunction handle,
                                                           CUoccupancyB2DSize shared_of,
                                                           size_t shared, int limit,
                                                           unsigned int flags) {
  if (flags & ~1u) return CUDA_ERROR_INVALID_VALUE;
  return cuOccupancyMaxPotentialBlockSize(grid, block, handle, shared_of, shared, limit);
}

CUresult CUDAAPI cuOccupancyAvailableDynamicSMemPerBlock(size_t *size, CUfunction handle,
                                                         int blocks, int threads) {
  ENTER_CONTEXT(context);
  struct kernel *kernel = find_kernel(handle);
  if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
  if (blocks < 1 || registers_fit(kernel, context->device, threads, 0) < blocks)
    return CUDA_ERROR_INVALID_VALUE;
  int all = device_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
                             context->device) /
            blocks;
  int fixed = kernel->attributes[CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES] +
              (options.capability >= 80 ? 1024 : 0);
  int most =
      most_shared(context->device) - kernel->attributes[CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES];
  *size = (size_t)(all - fixed < most ? all - fixed : most);
  return CUDA_SUCCESS;
}
