/* Devices: what an H100 says of itself, but for the compute capability and memory, which are
 * options. */
#include <stdio.h>
#include "driver.h"

/* What does not follow from an option. Everything that is not here is 0: not supported. */
static const struct {
  CUdevice_attribute attribute;
  int value;
} VALUES[] = {
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 2147483647},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 48 << 10},
    {CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY, 64 << 10},
    {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
    {CU_DEVICE_ATTRIBUTE_MAX_PITCH, 2147483647},
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 65536},
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 65536},
    {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1980000},
    {CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT, 512},
    {CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT, 32},
    {CU_DEVICE_ATTRIBUTE_GPU_OVERLAP, 1},
    {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 132},
    {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
    {CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 1},
    {CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 3},
    {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
    {CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 2619000},
    {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 5120},
    {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 50 << 20},
    {CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_GLOBAL_L1_CACHE_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_LOCAL_L1_CACHE_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 1},
    {CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK, 1024},
    {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_HOST_NUMA_MEMORY_POOLS_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_HOST_MEMORY_POOLS_SUPPORTED, 1},
};

/* Shared memory of a multiprocessor in KiB, most threads and blocks there, by compute
 * capability. */
static const struct {
  int capability, shared, threads, blocks;
} SIZES[] = {
    {75, 64, 1024, 16},   {80, 164, 2048, 32},  {86, 100, 1536, 16},  {87, 164, 1536, 16},
    {89, 100, 1536, 24},  {90, 228, 2048, 32},  {100, 228, 2048, 32}, {103, 228, 2048, 32},
    {120, 100, 1536, 24}, {121, 100, 1536, 24},
};

int device_attribute(CUdevice_attribute attribute, int device) {
  size_t at = sizeof SIZES / sizeof *SIZES - 1;
  while (at && SIZES[at].capability > options.capability) at--;
  switch ((int)attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return options.capability / 10;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return options.capability % 10;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return SIZES[at].threads;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: return SIZES[at].blocks;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
      return SIZES[at].shared << 10;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: /* one KiB is the system's,
                                                                   from 8.0 on */
      return (SIZES[at].shared - (options.capability >= 80)) << 10;
    case CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID: return device;
  }
  for (at = 0; at < sizeof VALUES / sizeof *VALUES; at++)
    if (VALUES[at].attribute == attribute) return VALUES[at].value;
  return 0;
}

CUresult CUDAAPI cuDeviceGetCount(int *count) {
  ENTER;
  if (!count) return CUDA_ERROR_INVALID_VALUE;
  *count = options.devices;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGet(CUdevice *device, int ordinal) {
  ENTER;
  TRY(check_device(ordinal));
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetName(char *name, int room, CUdevice device) {
  ENTER;
  TRY(check_device(device));
  if (!name || room < 1) return CUDA_ERROR_INVALID_VALUE;
  snprintf(name, (size_t)room, "Software GPU");
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
  ENTER;
  TRY(check_device(device));
  memset(uuid, 0, sizeof *uuid);
  memcpy(uuid->bytes, "softgpu", 7);
  uuid->bytes[15] = (char)device;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceTotalMem(size_t *bytes, CUdevice device) {
  ENTER;
  TRY(check_device(device));
  *bytes = options.memory;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int *value, CUdevice_attribute attribute,
                                      CUdevice device) {
  ENTER;
  TRY(check_device(device));
  if (!value || (int)attribute < 1 || attribute >= CU_DEVICE_ATTRIBUTE_MAX)
    return CUDA_ERROR_INVALID_VALUE;
  *value = device_attribute(attribute, device);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
  ENTER;
  TRY(check_device(device));
  *major = options.capability / 10;
  *minor = options.capability % 10;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetPCIBusId(char *text, int room, CUdevice device) {
  ENTER;
  TRY(check_device(device));
  if (!text || room < 13) return CUDA_ERROR_INVALID_VALUE;
  snprintf(text, (size_t)room, "0000:00:%02x.0", (unsigned)device & 0xff);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetByPCIBusId(CUdevice *device, const char *text) {
  ENTER;
  unsigned number;
  if (!device || !text || sscanf(text, "0000:00:%x.0", &number) != 1)
    return CUDA_ERROR_INVALID_VALUE;
  TRY(check_device((int)number));
  *device = (int)number;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuProfilerStart(void) {
  ENTER_CONTEXT(context);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuProfilerStop(void) {
  ENTER_CONTEXT(context);
  return CUDA_SUCCESS;
}
