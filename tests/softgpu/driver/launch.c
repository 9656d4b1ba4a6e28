/* Launches: what a driver refuses of them, and the copies of their parameters. */
#include <stdio.h>
#include "driver.h"

static CUresult check_shape(struct kernel *kernel, int device, const struct shape *shape) {
  const uint32_t *d = shape->dims;
  if (!d[0] || !d[1] || !d[2] || !d[3] || !d[4] || !d[5]) return CUDA_ERROR_INVALID_VALUE;
  if (d[0] > 2147483647u || d[1] > 65535 || d[2] > 65535) return CUDA_ERROR_INVALID_VALUE;
  if (d[3] > 1024 || d[4] > 1024 || d[5] > 64 || d[3] * d[4] * d[5] > 1024)
    return CUDA_ERROR_INVALID_VALUE;
  int threads = (int)(d[3] * d[4] * d[5]);
  int fixed = kernel->attributes[CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES];
  if (shape->shared > (uint32_t)kernel->most_shared[device]) return CUDA_ERROR_INVALID_VALUE;
  if ((int)shape->shared + fixed >
      device_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, device))
    return CUDA_ERROR_INVALID_VALUE;
  if (threads > kernel->attributes[CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK])
    return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  return registers_fit(kernel, device, threads, shape->shared)
             ? CUDA_SUCCESS
             : CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
}

/* The parameters as one buffer, where the caller gives that in place of pointers. */
static CUresult find_buffer(const struct kernel *kernel, void **extra, const char **buffer) {
  size_t size = 0, need = 0;
  for (; extra && extra[0] != CU_LAUNCH_PARAM_END; extra += 2) {
    if (extra[0] == CU_LAUNCH_PARAM_BUFFER_POINTER) *buffer = extra[1];
    else if (extra[0] == CU_LAUNCH_PARAM_BUFFER_SIZE) size = *(size_t *)extra[1];
    else return CUDA_ERROR_INVALID_VALUE;
  }
  uint32_t count = kernel->parameter_count;
  if (count) need = kernel->offsets[count - 1] + kernel->sizes[count - 1];
  return *buffer && size >= need ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult copy_parameters(struct kernel *kernel, void **params, void **extra,
                                struct work *work) {
  const char *buffer = NULL;
  uint32_t count = kernel->parameter_count;
  if (extra && params) return CUDA_ERROR_INVALID_VALUE;
  if (extra) TRY(find_buffer(kernel, extra, &buffer));
  if (count && !params && !buffer) return CUDA_ERROR_INVALID_VALUE;
  void **pointers = (void **)(work + 1);
  char *bytes = (char *)(pointers + count);
  for (uint32_t at = 0; at < count; at++) {
    pointers[at] = bytes;
    memcpy(bytes, buffer ? buffer + kernel->offsets[at] : params[at], kernel->sizes[at]);
    bytes += (kernel->sizes[at] + 15) & ~15u;
  }
  work->launch.params = pointers;
  return CUDA_SUCCESS;
}

CUresult make_launch(struct kernel *kernel, struct context *context, const struct shape *shape,
                     void **params, void **extra, struct work **out) {
  if (kernel->module->context && kernel->module->context != context)
    return CUDA_ERROR_INVALID_HANDLE;
  TRY(load_on(kernel->module, context->device));
  CUresult error = check_shape(kernel, context->device, shape);
  if (error) {
    const uint32_t *d = shape->dims;
    report("%s cannot be launched with grid %u,%u,%u, block %u,%u,%u and %u bytes of dynamic "
           "shared memory",
           kernel->name, d[0], d[1], d[2], d[3], d[4], d[5], shape->shared);
    return error;
  }
  size_t size = kernel->parameter_count * sizeof(void *);
  for (uint32_t at = 0; at < kernel->parameter_count; at++)
    size += (kernel->sizes[at] + 15) & ~15u;
  struct work *work = new_work(LAUNCH, context, size);
  work->launch.kernel = kernel;
  memcpy(work->launch.dims, shape->dims, sizeof shape->dims);
  work->launch.shared = shape->shared;
  work->launch.count = kernel->parameter_count;
  error = copy_parameters(kernel, params, extra, work);
  if (error) drop_work(work);
  else *out = work;
  return error;
}

static CUresult check_attributes(const CUlaunchConfig *config, int device,
                                 struct kernel *kernel) {
  for (unsigned at = 0; at < config->numAttrs; at++) {
    const CUlaunchAttribute *attribute = &config->attrs[at];
    if (attribute->id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
      if (attribute->value.clusterDim.x * attribute->value.clusterDim.y *
              attribute->value.clusterDim.z >
          1) {
        report("clusters of blocks are not run by the software GPU");
        return CUDA_ERROR_NOT_SUPPORTED;
      }
    } else if (attribute->id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE &&
               attribute->value.cooperative) {
      int threads = (int)(config->blockDimX * config->blockDimY * config->blockDimZ);
      uint64_t blocks = (uint64_t)config->gridDimX * config->gridDimY * config->gridDimZ;
      uint64_t fit = (uint64_t)registers_fit(kernel, device, threads, config->sharedMemBytes);
      if (blocks >
          fit * (uint64_t)device_attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device))
        return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    }
  }
  return CUDA_SUCCESS;
}

static CUresult launch(const CUlaunchConfig *config, CUfunction handle, void **params,
                       void **extra, struct context *context) {
  struct stream *stream;
  struct work *work;
  struct kernel *kernel = find_kernel(handle);
  if (!kernel) return CUDA_ERROR_INVALID_HANDLE;
  TRY(find_stream(config->hStream, context, &stream));
  if (kernel->module->context && stream->context != context) return CUDA_ERROR_INVALID_HANDLE;
  const struct shape shape = {{config->gridDimX, config->gridDimY, config->gridDimZ,
                               config->blockDimX, config->blockDimY, config->blockDimZ},
                              config->sharedMemBytes};
  log_line("launch %s grid %u,%u,%u block %u,%u,%u shared %u", kernel->name, shape.dims[0],
           shape.dims[1], shape.dims[2], shape.dims[3], shape.dims[4], shape.dims[5],
           shape.shared);
  TRY(check_attributes(config, stream->context->device, kernel));
  TRY(make_launch(kernel, stream->context, &shape, params, extra, &work));
  return enqueue(stream, work);
}

CUresult CUDAAPI cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction handle,
                                  void **params, void **extra) {
  ENTER_CONTEXT(context);
  return config ? launch(config, handle, params, extra, context) : CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuLaunchKernel(CUfunction handle, unsigned int grid_x, unsigned int grid_y,
                                unsigned int grid_z, unsigned int block_x,
                                unsigned int block_y, unsigned int block_z,
                                unsigned int shared, CUstream stream, void **params,
                                void **extra) {
  ENTER_CONTEXT(context);
  const CUlaunchConfig config = {grid_x,  grid_y, grid_z, block_x, block_y,
                                 block_z, shared, stream, NULL,    0};
  return launch(&config, handle, params, extra, context);
}

CUresult CUDAAPI cuLaunchCooperativeKernel(CUfunction handle, unsigned int grid_x,
                                           unsigned int grid_y, unsigned int grid_z,
                                           unsigned int block_x, unsigned int block_y,
                                           unsigned int block_z, unsigned int shared,
                                           CUstream stream, void **params) {
  ENTER_CONTEXT(context);
  CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE,
                                 .value = {.cooperative = 1}};
  const CUlaunchConfig config = {grid_x,  grid_y, grid_z, block_x,    block_y,
                                 block_z, shared, stream, &attribute, 1};
  return launch(&config, handle, params, NULL, context);
}
