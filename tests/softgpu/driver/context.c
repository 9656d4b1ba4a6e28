/* Contexts: one primary for each device and those that are made; a stack of them for each
 * thread. */
#include "driver.h"

enum { DEEPEST = 32 };

struct context *contexts;
static struct context *primaries[MOST_DEVICES];
static __thread struct context *stack[DEEPEST];
static __thread int depth;

struct context *current_context(void) { return depth ? stack[depth - 1] : NULL; }

CUresult check_context(struct context *context) {
  if (!context) return CUDA_ERROR_INVALID_CONTEXT;
  if (!context->alive) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  return context->fault;
}

struct context *context_of(CUcontext handle) {
  struct context *context = is_handle(handle, CONTEXT) ? (struct context *)handle : NULL;
  return context && context->alive ? context : NULL;
}

static void start(struct context *context, unsigned flags) {
  static unsigned long long next_id = 1;
  context->flags = flags;
  context->id = next_id++;
  context->alive = true;
  context->fault = CUDA_SUCCESS;
  context->limits[CU_LIMIT_STACK_SIZE] = 1024;
  context->limits[CU_LIMIT_PRINTF_FIFO_SIZE] = 1 << 20;
  context->limits[CU_LIMIT_MALLOC_HEAP_SIZE] = 8 << 20;
  context->legacy = new_stream(context, CU_STREAM_DEFAULT, 0);
  drop_handle(context->legacy); /* it is known by 0 and 1 */
}

static struct context *new_context(int device, bool primary) {
  struct context *context = calloc(1, sizeof *context);
  context->device = device;
  context->primary = primary;
  context->next = contexts;
  contexts = context;
  add_handle(context, CONTEXT);
  return context;
}

/* Everything that is still to do is done, then all memory of the context is freed. */
static void stop(struct context *context) {
  run_context(context);
  unload_all_of(context);
  free_all_of(context);
  for (struct stream *stream = context->streams; stream; stream = stream->next) {
    drop_handle(stream);
    stream->destroyed = true;
  }
  context->legacy = NULL;
  context->alive = false;
}

struct context *primary_context(int device) {
  struct context **context = &primaries[device];
  if (!*context) *context = new_context(device, true);
  return *context;
}

CUresult check_device(CUdevice device) {
  return device >= 0 && device < options.devices ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

/* ---- primary contexts ---- */
CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device) {
  ENTER;
  TRY(check_device(device));
  if (!out) return CUDA_ERROR_INVALID_VALUE;
  struct context *context = primary_context(device);
  if (!context->alive) start(context, context->flags);
  context->uses++;
  *out = (CUcontext)context;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice device) {
  ENTER;
  TRY(check_device(device));
  struct context *context = primary_context(device);
  if (!context->uses) return CUDA_ERROR_INVALID_CONTEXT;
  if (!--context->uses) stop(context);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxReset(CUdevice device) {
  ENTER;
  TRY(check_device(device));
  struct context *context = primary_context(device);
  if (context->alive) stop(context);
  context->uses = 0;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags,
                                            int *active) {
  ENTER;
  TRY(check_device(device));
  struct context *context = primary_context(device);
  if (flags) *flags = context->flags;
  if (active) *active = context->alive;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned int flags) {
  ENTER;
  TRY(check_device(device));
  primary_context(device)->flags = flags;
  return CUDA_SUCCESS;
}

/* ---- the current one ---- */
CUresult CUDAAPI cuCtxGetCurrent(CUcontext *out) {
  ENTER;
  if (!out) return CUDA_ERROR_INVALID_VALUE;
  *out = (CUcontext)current_context();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSetCurrent(CUcontext handle) {
  ENTER;
  struct context *context = context_of(handle);
  if (handle && !context) return CUDA_ERROR_INVALID_CONTEXT;
  if (depth) depth--;
  if (context) stack[depth++] = context;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxPushCurrent(CUcontext handle) {
  ENTER;
  struct context *context = context_of(handle);
  if (!context || depth == DEEPEST) return CUDA_ERROR_INVALID_CONTEXT;
  stack[depth++] = context;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxPopCurrent(CUcontext *out) {
  ENTER;
  if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
  depth--;
  if (out) *out = (CUcontext)stack[depth];
  return CUDA_SUCCESS;
}

static CUresult create(CUcontext *out, unsigned flags, CUdevice device) {
  TRY(check_device(device));
  if (!out || depth == DEEPEST) return CUDA_ERROR_INVALID_VALUE;
  struct context *context = new_context(device, false);
  start(context, flags);
  stack[depth++] = context;
  *out = (CUcontext)context;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxCreate(CUcontext *out, CUctxCreateParams *params, unsigned int flags,
                             CUdevice device) {
  ENTER;
  return params ? CUDA_ERROR_NOT_SUPPORTED : create(out, flags, device);
}

CUresult cuCtxCreate_v2(CUcontext *out, unsigned int flags, CUdevice device) {
  ENTER;
  return create(out, flags, device);
}

CUresult cuCtxCreate_v3(CUcontext *out, CUexecAffinityParam *affinity, int count,
                        unsigned int flags, CUdevice device) {
  ENTER;
  (void)affinity;
  return count ? CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY : create(out, flags, device);
}

CUresult CUDAAPI cuCtxDestroy(CUcontext handle) {
  ENTER;
  struct context *context = context_of(handle);
  if (!context || context->primary) return CUDA_ERROR_INVALID_CONTEXT;
  stop(context);
  if (current_context() == context) depth--;
  return CUDA_SUCCESS;
}

/* ---- what can be asked of one ---- */
CUresult CUDAAPI cuCtxGetDevice(CUdevice *device) {
  ENTER_CONTEXT(context);
  *device = context->device;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext handle) {
  ENTER;
  struct context *context = handle ? context_of(handle) : current_context();
  TRY(check_context(context));
  *device = context->device;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetFlags(unsigned int *flags) {
  ENTER_CONTEXT(context);
  *flags = context->flags;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSetFlags(unsigned int flags) {
  ENTER_CONTEXT(context);
  context->flags = flags;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetId(CUcontext handle, unsigned long long *id) {
  ENTER;
  struct context *context = handle ? context_of(handle) : current_context();
  if (!context) return handle ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_ERROR_INVALID_CONTEXT;
  *id = context->id;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetApiVersion(CUcontext handle, unsigned int *version) {
  ENTER;
  struct context *context = handle ? context_of(handle) : current_context();
  if (!context) return CUDA_ERROR_INVALID_CONTEXT;
  *version = 3020;
  return CUDA_SUCCESS;
}

static CUresult synchronise_context(struct context *context) {
  TRY(check_context(context));
  TRY(refuse_in_capture());
  run_context(context);
  return context->fault;
}

CUresult CUDAAPI cuCtxSynchronize(void) {
  ENTER;
  return synchronise_context(current_context());
}

CUresult cuCtxSynchronize_v2(CUcontext handle) {
  ENTER;
  return synchronise_context(handle ? context_of(handle) : current_context());
}

CUresult CUDAAPI cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  ENTER_CONTEXT(context);
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetLimit(size_t *value, CUlimit limit) {
  ENTER_CONTEXT(context);
  if ((unsigned)limit >= sizeof context->limits / sizeof *context->limits)
    return CUDA_ERROR_UNSUPPORTED_LIMIT;
  *value = context->limits[limit];
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSetLimit(CUlimit limit, size_t value) {
  ENTER_CONTEXT(context);
  if ((unsigned)limit >= sizeof context->limits / sizeof *context->limits)
    return CUDA_ERROR_UNSUPPORTED_LIMIT;
  context->limits[limit] = value;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetCacheConfig(CUfunc_cache *config) {
  ENTER_CONTEXT(context);
  *config = CU_FUNC_CACHE_PREFER_NONE;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSetCacheConfig(CUfunc_cache config) {
  ENTER_CONTEXT(context);
  (void)config; /* a hint */
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxResetPersistingL2Cache(void) {
  ENTER_CONTEXT(context);
  return CUDA_SUCCESS;
}

/* ---- peers: no device reaches another's memory ---- */
CUresult CUDAAPI cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
  ENTER;
  TRY(check_device(device));
  TRY(check_device(peer));
  *can = 0;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attribute,
                                         CUdevice from, CUdevice to) {
  ENTER;
  TRY(check_device(from));
  TRY(check_device(to));
  if (from == to || attribute < 1) return CUDA_ERROR_INVALID_VALUE;
  *value = 0;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags) {
  ENTER_CONTEXT(context);
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  return context_of(peer) ? CUDA_ERROR_PEER_ACCESS_UNSUPPORTED : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult CUDAAPI cuCtxDisablePeerAccess(CUcontext peer) {
  ENTER_CONTEXT(context);
  return context_of(peer) ? CUDA_ERROR_PEER_ACCESS_NOT_ENABLED : CUDA_ERROR_INVALID_CONTEXT;
}
