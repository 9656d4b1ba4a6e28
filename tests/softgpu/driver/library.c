/* Libraries, which every context may use, and modules, which belong to one. */
#include <stdio.h>
#include "driver.h"

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
  unload_module(module);
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
  unload_module(module);
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
