/* Pools of memory for streams: each device has one of its own, and so has the host. */
#include "driver.h"

static struct pool *pools, *standard_pools[MOST_DEVICES + 1], *current_pools[MOST_DEVICES + 1];

static size_t slot_of(int device) { return device < 0 ? MOST_DEVICES : (size_t)device; }

static struct pool *new_pool(int device, size_t most) {
  struct pool *pool = malloc(sizeof *pool);
  *pool = (struct pool){.device = device, .most = most, .reuse = {0, 1, 1, 1}, .next = pools};
  pools = pool;
  add_handle(pool, POOL);
  return pool;
}

static struct pool *standard_pool(int device) {
  struct pool **pool = &standard_pools[slot_of(device)];
  if (!*pool) *pool = current_pools[slot_of(device)] = new_pool(device, 0);
  return *pool;
}

struct pool *current_pool(int device) {
  standard_pool(device);
  return current_pools[slot_of(device)];
}

bool enter_pool(struct pool *pool, size_t size) {
  if (pool->most && pool->used + size > pool->most) return false;
  pool->used += size;
  if (pool->used > pool->used_high) pool->used_high = pool->used;
  if (pool->used > pool->reserved) pool->reserved = pool->used;
  if (pool->reserved > pool->reserved_high) pool->reserved_high = pool->reserved;
  return true;
}

void leave_pool(struct pool *pool, size_t size) {
  if (pool) pool->used -= size;
}

static void release(struct pool *pool, size_t keep) {
  uint64_t least = pool->used > keep ? pool->used : keep;
  if (pool->reserved > least) pool->reserved = least;
}

void release_pools(void) {
  for (struct pool *pool = pools; pool; pool = pool->next) release(pool, pool->threshold);
}

/* The place of a pool: a device's number, -1 for pinned host memory. */
static CUresult device_of(const CUmemLocation *location, CUmemAllocationType type,
                          int *device) {
  if (type != CU_MEM_ALLOCATION_TYPE_PINNED) return CUDA_ERROR_NOT_SUPPORTED;
  *device = -1;
  if (location->type != CU_MEM_LOCATION_TYPE_DEVICE) {
    bool host = location->type == CU_MEM_LOCATION_TYPE_HOST ||
                location->type == CU_MEM_LOCATION_TYPE_HOST_NUMA ||
                location->type == CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT;
    return host ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  }
  *device = location->id;
  return check_device(location->id);
}

struct pool *find_pool(CUmemoryPool handle) {
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
  current_pools[slot_of(device)] = pool;
  return CUDA_SUCCESS;
}

static CUresult pool_of_place(CUmemoryPool *pool, CUmemLocation *location,
                              CUmemAllocationType type, bool standard) {
  int device;
  if (!pool || !location) return CUDA_ERROR_INVALID_VALUE;
  TRY(device_of(location, type, &device));
  *pool = (CUmemoryPool)(standard ? standard_pool(device) : current_pool(device));
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
  int device;
  if (!out || !props) return CUDA_ERROR_INVALID_VALUE;
  TRY(device_of(&props->location, props->allocType, &device));
  if (props->handleTypes) return CUDA_ERROR_NOT_SUPPORTED; /* memory for other processes */
  *out = (CUmemoryPool)new_pool(device, props->maxSize);
  return CUDA_SUCCESS;
}

/* Allocations outlive their pool, so its record stays. */
CUresult CUDAAPI cuMemPoolDestroy(CUmemoryPool handle) {
  ENTER;
  struct pool *pool = find_pool(handle);
  if (!pool || pool == standard_pools[slot_of(pool->device)]) return CUDA_ERROR_INVALID_VALUE;
  struct pool **current = &current_pools[slot_of(pool->device)];
  if (*current == pool) *current = standard_pool(pool->device);
  drop_handle(pool);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolTrimTo(CUmemoryPool handle, size_t keep) {
  ENTER;
  struct pool *pool = find_pool(handle);
  if (!pool) return CUDA_ERROR_INVALID_VALUE;
  release(pool, keep);
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

/* Devices reach their own memory and the host's, always. */
static bool reaches(const CUmemLocation *location, const struct pool *pool) {
  bool device = location->type == CU_MEM_LOCATION_TYPE_DEVICE;
  return pool->device < 0 || (device && location->id == pool->device);
}

CUresult CUDAAPI cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc *access,
                                    size_t count) {
  ENTER;
  struct pool *pool = find_pool(handle);
  if (!pool || (count && !access)) return CUDA_ERROR_INVALID_VALUE;
  for (size_t at = 0; at < count; at++) {
    bool grants = access[at].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE;
    if (grants != reaches(&access[at].location, pool)) return CUDA_ERROR_INVALID_DEVICE;
  }
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool handle,
                                    CUmemLocation *location) {
  ENTER;
  struct pool *pool = find_pool(handle);
  if (!pool || !flags || !location) return CUDA_ERROR_INVALID_VALUE;
  *flags = reaches(location, pool) ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                                   : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  return CUDA_SUCCESS;
}
