/* Memory that the host asks for: plain, pinned, and by streams from pools; and what a pointer
 * is. */
#include "driver.h"

struct pool {
  int device;
  bool standard; /* the device's own, which cannot be destroyed */
  uint64_t used, used_high, reserved, reserved_high, threshold;
  int reuse[4]; /* three policies, by attribute */
};

static struct pool standard_pools[MOST_DEVICES];
static struct pool *current_pools[MOST_DEVICES];

static struct pool *standard_pool(int device) {
  struct pool *pool = &standard_pools[device];
  if (!pool->standard) {
    *pool = (struct pool){.device = device, .standard = true, .reuse = {0, 1, 1, 1}};
    add_handle(pool, POOL);
    current_pools[device] = pool;
  }
  return pool;
}

static struct pool *current_pool(int device) {
  standard_pool(device);
  return current_pools[device];
}

/* ---- memory of the context ---- */
static CUresult allocate(struct context *context, uint64_t *address, size_t size) {
  if (!address || !size) return CUDA_ERROR_INVALID_VALUE;
  TRY(refuse_in_capture());
  struct block *block = reserve(context->device, size, PLAIN, NULL);
  if (!block) return CUDA_ERROR_OUT_OF_MEMORY;
  block->context = context;
  make_fresh(block->start, size);
  *address = block->start;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemAlloc(CUdeviceptr *address, size_t size) {
  ENTER_CONTEXT(context);
  return allocate(context, (uint64_t *)address, size);
}

CUresult CUDAAPI cuMemAllocPitch(CUdeviceptr *address, size_t *pitch, size_t width,
                                 size_t height, unsigned int element) {
  ENTER_CONTEXT(context);
  if (!pitch || (element != 4 && element != 8 && element != 16))
    return CUDA_ERROR_INVALID_VALUE;
  *pitch = (width + 511) / 512 * 512;
  return allocate(context, (uint64_t *)address, *pitch * height);
}

static void leave_pool(struct block *block) {
  if (block->pool) block->pool->used -= block->size;
}

/* Waits for the context, as every driver does, but not where the memory comes from a pool. */
CUresult CUDAAPI cuMemFree(CUdeviceptr address) {
  ENTER_CONTEXT(context);
  if (!address) return CUDA_SUCCESS;
  struct block *block = block_at(address);
  bool free_here = block && block->start == address &&
                   (block->origin == PLAIN || block->origin == STREAM_ORDERED);
  if (!free_here) {
    report("cuMemFree of 0x%llx, which is no allocation", (unsigned long long)address);
    return CUDA_ERROR_INVALID_VALUE;
  }
  TRY(refuse_in_capture());
  if (block->origin == PLAIN) {
    run_context(block->context);
    block = block_at(address); /* the lock was given back meanwhile */
    if (!block) return CUDA_ERROR_INVALID_VALUE;
  }
  leave_pool(block);
  host_free(block, NULL);
  end_block(block->start, block->size, block->id);
  return context->fault;
}

CUresult CUDAAPI cuMemGetInfo(size_t *available, size_t *total) {
  ENTER_CONTEXT(context);
  if (total) *total = options.memory;
  if (available) *available = options.memory - used_memory(context->device);
  return CUDA_SUCCESS;
}

/* ---- by streams ---- */
static CUresult allocate_async(uint64_t *address, size_t size, struct pool *pool,
                               struct stream *stream) {
  if (!address || !size) return CUDA_ERROR_INVALID_VALUE;
  bool of_graph = stream->capture;
  struct block *block =
      reserve(pool->device, size, of_graph ? OF_GRAPH : STREAM_ORDERED, stream);
  if (!block) return CUDA_ERROR_OUT_OF_MEMORY;
  block->context = stream->context;
  if (!of_graph) {
    block->pool = pool;
    pool->used += size;
    if (pool->used > pool->used_high) pool->used_high = pool->used;
    if (pool->used > pool->reserved) pool->reserved = pool->used;
    if (pool->reserved > pool->reserved_high) pool->reserved_high = pool->reserved;
  }
  struct work *work = new_work(ALLOCATE, stream->context, 0);
  work->memory.address = *address = block->start;
  work->memory.size = size;
  work->memory.of_graph = of_graph;
  return enqueue(stream, work);
}

CUresult CUDAAPI cuMemAllocAsync(CUdeviceptr *address, size_t size, CUstream handle) {
  ENTER_CONTEXT(context);
  struct stream *stream;
  TRY(find_stream(handle, context, &stream));
  return allocate_async((uint64_t *)address, size, current_pool(stream->context->device),
                        stream);
}

CUresult CUDAAPI cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t size, CUmemoryPool pool,
                                         CUstream handle) {
  ENTER_CONTEXT(context);
  struct stream *stream;
  TRY(find_stream(handle, context, &stream));
  if (!is_handle(pool, POOL)) return CUDA_ERROR_INVALID_VALUE;
  return allocate_async((uint64_t *)address, size, (struct pool *)pool, stream);
}

CUresult CUDAAPI cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  ENTER_CONTEXT(context);
  struct stream *stream;
  TRY(find_stream(handle, context, &stream));
  if (!address) return CUDA_SUCCESS;
  struct block *block = block_at(address);
  if (!block || block->start != address || block->origin == HOST ||
      block->origin == OF_MODULE) {
    report("cuMemFreeAsync of 0x%llx, which is no allocation", (unsigned long long)address);
    return CUDA_ERROR_INVALID_VALUE;
  }
  struct work *work = new_work(FREE, stream->context, 0);
  work->memory.address = address;
  work->memory.size = block->size;
  work->memory.id = block->id;
  work->memory.of_graph = block->origin == OF_GRAPH; /* its address stays the graph's */
  if (!work->memory.of_graph) {
    leave_pool(block);
    host_free(block, stream);
  }
  return enqueue(stream, work);
}

/* ---- pools ---- */
static struct pool *find_pool(CUmemoryPool handle) {
  return is_handle(handle, POOL) ? (struct pool *)handle : NULL;
}

CUresult CUDAAPI cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device) {
  ENTER;
  TRY(check_device(device));
  *pool = (CUmemoryPool)standard_pool(device);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device) {
  ENTER;
  TRY(check_device(device));
  *pool = (CUmemoryPool)current_pool(device);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceSetMemPool(CUdevice device, CUmemoryPool handle) {
  ENTER;
  TRY(check_device(device));
  struct pool *pool = find_pool(handle);
  if (!pool || pool->device != device) return CUDA_ERROR_INVALID_VALUE;
  standard_pool(device);
  current_pools[device] = pool;
  return CUDA_SUCCESS;
}

static CUresult pool_of_place(CUmemoryPool *pool, CUmemLocation *location,
                              CUmemAllocationType type, bool standard) {
  if (type != CU_MEM_ALLOCATION_TYPE_PINNED || location->type != CU_MEM_LOCATION_TYPE_DEVICE)
    return CUDA_ERROR_NOT_SUPPORTED;
  TRY(check_device(location->id));
  *pool = (CUmemoryPool)(standard ? standard_pool(location->id) : current_pool(location->id));
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetDefaultMemPool(CUmemoryPool *pool, CUmemLocation *location,
                                        CUmemAllocationType type) {
  ENTER;
  return pool_of_place(pool, location, type, true);
}

CUresult CUDAAPI cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location,
                                 CUmemAllocationType type) {
  ENTER;
  return pool_of_place(pool, location, type, false);
}

CUresult CUDAAPI cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *props) {
  ENTER;
  bool on_device = props && props->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
  if (!out || !on_device || props->allocType != CU_MEM_ALLOCATION_TYPE_PINNED)
    return CUDA_ERROR_NOT_SUPPORTED;
  if (props->handleTypes) return CUDA_ERROR_NOT_SUPPORTED; /* memory for other processes */
  TRY(check_device(props->location.id));
  struct pool *pool = malloc(sizeof *pool);
  *pool = (struct pool){.device = props->location.id, .reuse = {0, 1, 1, 1}};
  add_handle(pool, POOL);
  *out = (CUmemoryPool)pool;
  return CUDA_SUCCESS;
}

/* Allocations outlive their pool, so its record stays. */
CUresult CUDAAPI cuMemPoolDestroy(CUmemoryPool handle) {
  ENTER;
  struct pool *pool = find_pool(handle);
  if (!pool || pool->standard) return CUDA_ERROR_INVALID_VALUE;
  if (current_pools[pool->device] == pool)
    current_pools[pool->device] = standard_pool(pool->device);
  drop_handle(pool);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolTrimTo(CUmemoryPool handle, size_t keep) {
  ENTER;
  struct pool *pool = find_pool(handle);
  if (!pool) return CUDA_ERROR_INVALID_VALUE;
  uint64_t least = pool->used > keep ? pool->used : keep;
  if (pool->reserved > least) pool->reserved = least;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute,
                                       void *value) {
  ENTER;
  struct pool *pool = find_pool(handle);
  if (!pool || !value) return CUDA_ERROR_INVALID_VALUE;
  switch ((int)attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      *(int *)value = pool->reuse[attribute];
      break;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: *(uint64_t *)value = pool->threshold; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: *(uint64_t *)value = pool->reserved; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: *(uint64_t *)value = pool->reserved_high; break;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: *(uint64_t *)value = pool->used; break;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: *(uint64_t *)value = pool->used_high; break;
    default: return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute,
                                       void *value) {
  ENTER;
  struct pool *pool = find_pool(handle);
  if (!pool || !value) return CUDA_ERROR_INVALID_VALUE;
  switch ((int)attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      pool->reuse[attribute] = *(int *)value;
      break;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: pool->threshold = *(uint64_t *)value; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      pool->reserved_high = pool->reserved;
      break; /* 0 resets it */
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: pool->used_high = pool->used; break;
    default: return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc *access,
                                    size_t count) {
  ENTER;
  struct pool *pool = find_pool(handle);
  if (!pool || (count && !access)) return CUDA_ERROR_INVALID_VALUE;
  for (size_t at = 0; at < count; at++) {
    bool own = access[at].location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
               access[at].location.id == pool->device;
    bool grants = access[at].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE;
    if (own != grants)
      return CUDA_ERROR_INVALID_DEVICE; /* no peers, and the own device always */
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool handle,
                                    CUmemLocation *location) {
  ENTER;
  struct pool *pool = find_pool(handle);
  if (!pool || !flags || !location) return CUDA_ERROR_INVALID_VALUE;
  bool own = location->type == CU_MEM_LOCATION_TYPE_DEVICE && location->id == pool->device;
  *flags = own ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  return CUDA_SUCCESS;
}
