/* How programs find the driver's functions, and what its errors are called. */
#include <ctype.h>
#include "driver.h"
#include "entries.h"

/* The newest version of a function that both the caller and the driver know. */
static CUresult find_entry(const char *name, void **function, int version, cuuint64_t flags,
                           CUdriverProcAddressQueryResult *status) {
  const struct entry *best = NULL;
  bool known = false;
  if (!name || !function || flags & ~3ull) return CUDA_ERROR_INVALID_VALUE;
  *function = NULL;
  for (size_t at = 0; at < softgpu_entry_count; at++) {
    const struct entry *entry = &softgpu_entries[at];
    if (strcmp(entry->name, name)) continue;
    known = true;
    int driver = initialised ? options.driver : CUDA_VERSION;
    if (entry->since > version || entry->since / 10 > driver / 10) continue;
    if (!best || entry->since > best->since) best = entry;
  }
  if (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) best = NULL; /* not offered */
  if (best) *function = best->function;
  if (status)
    *status = best    ? CU_GET_PROC_ADDRESS_SUCCESS
              : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                      : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return best ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

/* These two are asked before cuInit. */
CUresult CUDAAPI cuGetProcAddress(const char *name, void **function, int version,
                                  cuuint64_t flags, CUdriverProcAddressQueryResult *status) {
  return find_entry(name, function, version, flags, status);
}
#undef cuGetProcAddress
CUresult cuGetProcAddress(const char *name, void **function, int version, cuuint64_t flags) {
  return find_entry(name, function, version, flags, NULL);
}

/* The CUDA runtime finds its way into the driver by tables that are not public. */
CUresult CUDAAPI cuGetExportTable(const void **table, const CUuuid *id) {
  (void)table, (void)id;
  static bool told;
  if (!told)
    report("the CUDA runtime (cudart) is not served by the software GPU, only the driver API");
  told = true;
  return CUDA_ERROR_NOT_SUPPORTED;
}

static const struct error *find_error(CUresult code) {
  for (size_t at = 0; at < softgpu_error_count; at++)
    if (softgpu_errors[at].code == (int)code) return &softgpu_errors[at];
  return NULL;
}

CUresult CUDAAPI cuGetErrorName(CUresult code, const char **name) {
  const struct error *error = find_error(code);
  *name = error ? error->name : NULL;
  return error ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* What the driver says where that is known well, else the name in words. */
CUresult CUDAAPI cuGetErrorString(CUresult code, const char **text) {
  static __thread char words[128];
  const struct error *error = find_error(code);
  *text = error ? words : NULL;
  if (!error) return CUDA_ERROR_INVALID_VALUE;
  const char *name = error->name + strlen("CUDA_");
  if (!strncmp(name, "ERROR_", 6)) name += 6;
  size_t at = 0;
  for (; name[at] && at < sizeof words - 1; at++)
    words[at] = name[at] == '_' ? ' ' : (char)tolower(name[at]);
  words[at] = 0;
  switch ((int)code) {
    case CUDA_SUCCESS: *text = "no error"; break;
    case CUDA_ERROR_INVALID_VALUE: *text = "invalid argument"; break;
    case CUDA_ERROR_INVALID_CONTEXT: *text = "invalid device context"; break;
    case CUDA_ERROR_INVALID_HANDLE: *text = "invalid resource handle"; break;
    case CUDA_ERROR_ILLEGAL_ADDRESS: *text = "an illegal memory access was encountered"; break;
    case CUDA_ERROR_LAUNCH_TIMEOUT: *text = "the launch timed out and was terminated"; break;
    case CUDA_ERROR_LAUNCH_FAILED: *text = "unspecified launch failure"; break;
    case CUDA_ERROR_INVALID_PTX: *text = "a PTX JIT compilation failed"; break;
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
      *text = "the provided PTX was compiled with an unsupported toolchain.";
      break;
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
      *text = "no kernel image is available for execution on the device";
      break;
  }
  return CUDA_SUCCESS;
}
