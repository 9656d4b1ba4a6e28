/* Pinned host memory, registered host memory, and what the driver says of a pointer. */
#include "driver.h"

static struct range {
  uint64_t start, size;
  unsigned flags;
  struct range *next;
} *registered;

static struct range *registered_at(uint64_t address) {
  for (struct range *range = registered; range; range = range->next)
    if (address - range->start < range->size) return range;
  return NULL;
}

bool is_pinned(uint64_t address) { return share_of(address) == -1 || registered_at(address); }

static CUresult allocate(struct context *context, void **out, size_t size, unsigned flags) {
  if (!out || !size || flags & ~7u) return CUDA_ERROR_INVALID_VALUE;
  TRY(refuse_in_capture());
  struct block *block = reserve(-1, size, HOST, NULL);
  if (!block) return CUDA_ERROR_OUT_OF_MEMORY;
  block->context = context;
  block->flags = flags | CU_MEMHOSTALLOC_DEVICEMAP;
  make_fresh(block->start, size);
  mark(block->start, size, SOFTGPU_WRITTEN); /* what the host writes cannot be seen */
  *out = (void *)block->start;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemAllocHost(void **out, size_t size) {
  ENTER_CONTEXT(context);
  return allocate(context, out, size, 0);
}

CUresult CUDAAPI cuMemHostAlloc(void **out, size_t size, unsigned int flags) {
  ENTER_CONTEXT(context);
  return allocate(context, out, size, flags);
}

static struct block *pinned_block(const void *pointer) {
  struct block *block = block_at((uint64_t)pointer);
  return block && block->origin == HOST ? block : NULL;
}

CUresult CUDAAPI cuMemFreeHost(void *pointer) {
  ENTER_CONTEXT(context);
  struct block *block = pinned_block(pointer);
  if (!block || block->start != (uint64_t)pointer) return CUDA_ERROR_INVALID_VALUE;
  TRY(refuse_in_capture());
  run_context(block->context);
  block = pinned_block(pointer);
  if (!block) return CUDA_ERROR_INVALID_VALUE;
  host_free(block, NULL);
  end_block(block->start, block->size, block->id);
  return context->fault;
}

CUresult CUDAAPI cuMemHostGetFlags(unsigned int *flags, void *pointer) {
  ENTER_CONTEXT(context);
  struct block *block = pinned_block(pointer);
  struct range *range = registered_at((uint64_t)pointer);
  if (!flags || (!block && !range)) return CUDA_ERROR_INVALID_VALUE;
  *flags = block ? block->flags : range->flags;
  return CUDA_SUCCESS;
}

/* Kernels reach pinned memory at its own address; registered memory is not in their window. */
CUresult CUDAAPI cuMemHostGetDevicePointer(CUdeviceptr *address, void *pointer,
                                           unsigned int flags) {
  ENTER_CONTEXT(context);
  if (!address || flags) return CUDA_ERROR_INVALID_VALUE;
  if (registered_at((uint64_t)pointer)) {
    report(
        "kernels of the software GPU do not reach registered host memory, only pinned memory");
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  if (!pinned_block(pointer)) return CUDA_ERROR_INVALID_VALUE;
  *address = (CUdeviceptr)pointer;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostRegister(void *pointer, size_t size, unsigned int flags) {
  ENTER_CONTEXT(context);
  uint64_t start = (uint64_t)pointer;
  if (!pointer || !size || flags & ~0xfu) return CUDA_ERROR_INVALID_VALUE;
  TRY(refuse_in_capture());
  for (struct range *range = registered; range; range = range->next)
    if (start < range->start + range->size && range->start < start + size)
      return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  struct range *range = malloc(sizeof *range);
  *range = (struct range){start, size, flags, registered};
  registered = range;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostUnregister(void *pointer) {
  ENTER_CONTEXT(context);
  for (struct range **at = &registered; *at; at = &(*at)->next)
    if ((*at)->start == (uint64_t)pointer) {
      struct range *range = *at;
      run_context(context);
      *at = range->next;
      free(range);
      return context->fault;
    }
  return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
}

/* ---- what a pointer is ---- */
CUresult CUDAAPI cuMemGetAddressRange(CUdeviceptr *start, size_t *size, CUdeviceptr address) {
  ENTER_CONTEXT(context);
  struct block *block = block_at(address);
  if (!block) return CUDA_ERROR_NOT_FOUND;
  if (start) *start = block->start;
  if (size) *size = block->size;
  return CUDA_SUCCESS;
}

static bool device_shares_pool(const struct block *block) {
  return block && block->origin == STREAM_ORDERED;
}

/* Writes an attribute; false if the pointer has none, and then what cuPointerGetAttributes
 * gives. */
static bool attribute_of(uint64_t address, CUpointer_attribute attribute, void *out) {
  struct block *block = block_at(address);
  struct range *range = block ? NULL : registered_at(address);
  bool known = block || range, on_host = range || (block && block->device < 0);
  uint64_t start = block ? block->start : range ? range->start : 0;
  switch ((int)attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      *(void **)out = block ? (void *)block->context : NULL;
      return block;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *(unsigned *)out = !known ? 0 : on_host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
      return known;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      *(uint64_t *)out = block ? address : 0;
      return block;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      *(uint64_t *)out = on_host ? address : 0;
      return on_host;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
      *(unsigned long long *)out = block ? block->id : 0;
      return block;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE: *(bool *)out = false; return known;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED: *(unsigned *)out = 0; return known;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *(int *)out = !block ? -2 : block->device >= 0 ? block->device : block->context->device;
      return block;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: *(uint64_t *)out = start; return known;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      *(size_t *)out = block ? block->size : range ? range->size : 0;
      return known;
    case CU_POINTER_ATTRIBUTE_MAPPED: *(unsigned *)out = known; return true;
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES: *(uint64_t *)out = 0; return known;
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS: *(unsigned *)out = known ? 3 : 0; return known;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
      *(void **)out = device_shares_pool(block) ? block->pool : NULL;
      return block;
    default: return false;
  }
}

CUresult CUDAAPI cuPointerGetAttribute(void *out, CUpointer_attribute attribute,
                                       CUdeviceptr address) {
  ENTER_CONTEXT(context);
  if (!out) return CUDA_ERROR_INVALID_VALUE;
  return attribute_of(address, attribute, out) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attributes,
                                        void **out, CUdeviceptr address) {
  ENTER_CONTEXT(context);
  for (unsigned at = 0; at < count; at++) attribute_of(address, attributes[at], out[at]);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuPointerSetAttribute(const void *value, CUpointer_attribute attribute,
                                       CUdeviceptr address) {
  ENTER_CONTEXT(context);
  bool known = value && attribute == CU_POINTER_ATTRIBUTE_SYNC_MEMOPS && block_at(address);
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
