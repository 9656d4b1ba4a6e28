/* Memsets. Those of the legacy stream do not wait either, but where they set pinned memory. */
#include "driver.h"

CUresult make_set(const CUDA_MEMSET_NODE_PARAMS *params, struct context *context,
                  struct work **work) {
  uint32_t element = params->elementSize;
  if (element != 1 && element != 2 && element != 4) return CUDA_ERROR_INVALID_VALUE;
  size_t pitch = params->height > 1 ? params->pitch : params->width * element;
  if (params->dst % element || pitch < params->width * element)
    return CUDA_ERROR_INVALID_VALUE;
  *work = new_work(params->width && params->height ? SET : NOTHING, context, 0);
  if ((*work)->kind == NOTHING) return CUDA_SUCCESS;
  (*work)->set.address = params->dst;
  (*work)->set.pitch = pitch;
  (*work)->set.width = params->width;
  (*work)->set.height = params->height;
  (*work)->set.value = params->value;
  (*work)->set.element = element;
  uint64_t size = pitch * (params->height - 1) + params->width * element;
  if (in_window(params->dst) && within_block(params->dst, size)) return CUDA_SUCCESS;
  report("a memset of %llu bytes at 0x%llx lies outside any allocation",
         (unsigned long long)size, (unsigned long long)params->dst);
  drop_work(*work);
  return CUDA_ERROR_INVALID_VALUE;
}

static CUresult set(const CUDA_MEMSET_NODE_PARAMS *params, CUstream handle,
                    struct context *context, bool async) {
  struct stream *stream;
  struct work *work;
  TRY(find_stream(handle, context, &stream));
  if (!async) TRY(refuse_in_capture());
  TRY(make_set(params, stream->context, &work));
  TRY(enqueue(stream, work));
  return async || share_of(params->dst) >= 0 ? CUDA_SUCCESS : synchronise(stream);
}

#define SET_OF(element, ...)                                               \
  ENTER_CONTEXT(context);                                                  \
  CUDA_MEMSET_NODE_PARAMS params = {address, 0, value, element, width, 1}; \
  return set(&params, __VA_ARGS__)

#define ROWS_OF(element, ...)                                                       \
  ENTER_CONTEXT(context);                                                           \
  CUDA_MEMSET_NODE_PARAMS params = {address, pitch, value, element, width, height}; \
  return set(&params, __VA_ARGS__)

CUresult CUDAAPI cuMemsetD8(CUdeviceptr address, unsigned char value, size_t width) {
  SET_OF(1, CU_STREAM_LEGACY, context, false);
}
CUresult CUDAAPI cuMemsetD16(CUdeviceptr address, unsigned short value, size_t width) {
  SET_OF(2, CU_STREAM_LEGACY, context, false);
}
CUresult CUDAAPI cuMemsetD32(CUdeviceptr address, unsigned int value, size_t width) {
  SET_OF(4, CU_STREAM_LEGACY, context, false);
}
CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr address, unsigned char value, size_t width,
                                 CUstream stream) {
  SET_OF(1, stream, context, true);
}
CUresult CUDAAPI cuMemsetD16Async(CUdeviceptr address, unsigned short value, size_t width,
                                  CUstream stream) {
  SET_OF(2, stream, context, true);
}
CUresult CUDAAPI cuMemsetD32Async(CUdeviceptr address, unsigned int value, size_t width,
                                  CUstream stream) {
  SET_OF(4, stream, context, true);
}
CUresult CUDAAPI cuMemsetD2D8(CUdeviceptr address, size_t pitch, unsigned char value,
                              size_t width, size_t height) {
  ROWS_OF(1, CU_STREAM_LEGACY, context, false);
}
CUresult CUDAAPI cuMemsetD2D16(CUdeviceptr address, size_t pitch, unsigned short value,
                               size_t width, size_t height) {
  ROWS_OF(2, CU_STREAM_LEGACY, context, false);
}
CUresult CUDAAPI cuMemsetD2D32(CUdeviceptr address, size_t pitch, unsigned int value,
                               size_t width, size_t height) {
  ROWS_OF(4, CU_STREAM_LEGACY, context, false);
}
CUresult CUDAAPI cuMemsetD2D8Async(CUdeviceptr address, size_t pitch, unsigned char value,
                                   size_t width, size_t height, CUstream stream) {
  ROWS_OF(1, stream, context, true);
}
CUresult CUDAAPI cuMemsetD2D16Async(CUdeviceptr address, size_t pitch, unsigned short value,
                                    size_t width, size_t height, CUstream stream) {
  ROWS_OF(2, stream, context, true);
}
CUresult CUDAAPI cuMemsetD2D32Async(CUdeviceptr address, size_t pitch, unsigned int value,
                                    size_t width, size_t height, CUstream stream) {
  ROWS_OF(4, stream, context, true);
}
