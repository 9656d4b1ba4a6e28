/* Copies with attributes, one or many: who says when their source may be read. */
#include "driver.h"

/* In the stream's order, or any time: as late as can be. During the call: now. */
static CUresult copy(CUdeviceptr to, CUdeviceptr from, size_t size,
                     const CUmemcpyAttributes *attributes, struct stream *stream) {
  struct work *work;
  CUmemcpySrcAccessOrder order = attributes->srcAccessOrder;
  if (order < CU_MEMCPY_SRC_ACCESS_ORDER_STREAM || order > CU_MEMCPY_SRC_ACCESS_ORDER_ANY)
    return CUDA_ERROR_INVALID_VALUE;
  TRY(make_flat(to, from, size, ANYWHERE, stream->context, &work));
  bool now = order == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
  return copy_async(stream, work, now ? HOST_NOW : LATE);
}

CUresult cuMemcpyWithAttributesAsync(CUdeviceptr to, CUdeviceptr from, size_t size,
                                     CUmemcpyAttributes *attributes, CUstream handle) {
  ENTER_CONTEXT(context);
  struct stream *stream;
  TRY(find_stream(handle, context, &stream));
  return attributes ? copy(to, from, size, attributes, stream) : CUDA_ERROR_INVALID_VALUE;
}

/* Copies of a batch have no order: here the last comes first. */
CUresult CUDAAPI cuMemcpyBatchAsync(CUdeviceptr *to, CUdeviceptr *from, size_t *sizes,
                                    size_t count, CUmemcpyAttributes *attributes,
                                    size_t *starts, size_t kinds, CUstream handle) {
  ENTER_CONTEXT(context);
  struct stream *stream;
  TRY(find_stream(handle, context, &stream));
  if (!to || !from || !sizes || !count || !attributes || !starts || !kinds || kinds > count)
    return CUDA_ERROR_INVALID_VALUE;
  if (stream == context->legacy || starts[0]) return CUDA_ERROR_INVALID_VALUE;
  for (size_t kind = kinds, stop = count; kind-- > 0; stop = starts[kind]) {
    if (starts[kind] >= stop) return CUDA_ERROR_INVALID_VALUE;
    for (size_t at = stop; at-- > starts[kind];)
      TRY(copy(to[at], from[at], sizes[at], &attributes[kind], stream));
  }
  return CUDA_SUCCESS;
}
