/* Copies and memsets, of rows and slices; every one of them is the general one.
 *
 * What waits for what is as cuda_runtime_api.h has it under "API synchronization behavior":
 * pageable memory that is copied to a device is read at the call, pinned memory when the
 * stream gets to it, and memory of the host is filled then, too.
 */
#include "driver.h"

static bool on_device(uint64_t address) { return share_of(address) >= 0; }

/* Addresses that a side spans, first to last byte. */
static uint64_t span(struct side side, size_t width, size_t height, size_t depth) {
  return ((depth - 1) * side.rows + height - 1) * side.pitch + width;
}

static CUresult check_side(struct side side, size_t width, size_t height, size_t depth) {
  if (!side.address) return CUDA_ERROR_INVALID_VALUE;
  if (height > 1 && side.pitch < width) return CUDA_ERROR_INVALID_VALUE;
  if (!in_window(side.address)) return CUDA_SUCCESS;
  uint64_t size = span(side, width, height, depth);
  if (within_block(side.address, size)) return CUDA_SUCCESS;
  report("a copy of %llu bytes at 0x%llx lies outside any allocation",
         (unsigned long long)size, (unsigned long long)side.address);
  return CUDA_ERROR_INVALID_VALUE;
}

static struct work *new_copy(struct context *context, struct side to, struct side from,
                             size_t width, size_t height, size_t depth) {
  struct work *work = new_work(COPY, context, 0);
  work->copy.to = to;
  work->copy.from = from;
  work->copy.width = width;
  work->copy.height = height;
  work->copy.depth = depth;
  return work;
}

/* One side of the driver's own description of a copy. */
static CUresult side_of(CUmemorytype type, uint64_t host, uint64_t device, size_t x, size_t y,
                        size_t z, size_t pitch, size_t rows, const CUDA_MEMCPY3D *params,
                        struct side *side) {
  if (type == CU_MEMORYTYPE_ARRAY) return CUDA_ERROR_NOT_SUPPORTED;
  if (!pitch) pitch = params->WidthInBytes + x;
  if (!rows) rows = params->Height + y;
  if (type == CU_MEMORYTYPE_DEVICE && !in_window(device)) return CUDA_ERROR_INVALID_VALUE;
  uint64_t base = type == CU_MEMORYTYPE_HOST ? host : device;
  *side = (struct side){base ? base + (z * rows + y) * pitch + x : 0, pitch, rows};
  return CUDA_SUCCESS;
}

CUresult make_copy(const CUDA_MEMCPY3D *params, struct context *context, struct work **work) {
  struct side to, from;
  size_t width = params->WidthInBytes, height = params->Height, depth = params->Depth;
  TRY(side_of(params->srcMemoryType, (uint64_t)params->srcHost, params->srcDevice,
              params->srcXInBytes, params->srcY, params->srcZ, params->srcPitch,
              params->srcHeight, params, &from));
  TRY(side_of(params->dstMemoryType, (uint64_t)params->dstHost, params->dstDevice,
              params->dstXInBytes, params->dstY, params->dstZ, params->dstPitch,
              params->dstHeight, params, &to));
  if (!width || !height || !depth) {
    *work = new_work(NOTHING, context, 0);
    return CUDA_SUCCESS;
  }
  TRY(check_side(to, width, height, depth));
  TRY(check_side(from, width, height, depth));
  *work = new_copy(context, to, from, width, height, depth);
  return CUDA_SUCCESS;
}

static CUmemorytype type_of_address(uint64_t address) {
  return in_window(address) ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
}

void copy_params(const struct work *work, CUDA_MEMCPY3D *params) {
  *params = (CUDA_MEMCPY3D){
      .srcMemoryType = type_of_address(work->copy.from.address),
      .srcHost = (const void *)work->copy.from.address,
      .srcDevice = work->copy.from.address,
      .srcPitch = work->copy.from.pitch,
      .srcHeight = work->copy.from.rows,
      .dstMemoryType = type_of_address(work->copy.to.address),
      .dstHost = (void *)work->copy.to.address,
      .dstDevice = work->copy.to.address,
      .dstPitch = work->copy.to.pitch,
      .dstHeight = work->copy.to.rows,
      .WidthInBytes = work->copy.width,
      .Height = work->copy.height,
      .Depth = work->copy.depth,
  };
}

/* Read what lies in pageable memory now, as a driver does to have it where the device can
 * reach it. */
static void stage(struct work *work) {
  struct side from = work->copy.from;
  size_t width = work->copy.width, height = work->copy.height, depth = work->copy.depth;
  char *to = work->copy.staged = malloc(width * height * depth);
  for (size_t slice = 0; slice < depth; slice++)
    for (size_t row = 0; row < height; row++, to += width)
      memcpy(to, (const char *)from.address + (slice * from.rows + row) * from.pitch, width);
}

static bool is_pageable(uint64_t address) {
  return !on_device(address) && !is_pinned(address);
}

/* A call that does not wait, where it need not. */
CUresult copy_async(struct stream *stream, struct work *work, enum reading reading) {
  if (work->kind == NOTHING) return enqueue(stream, work);
  uint64_t to = work->copy.to.address, from = work->copy.from.address;
  if (stream->capture && (is_pageable(to) || is_pageable(from)) && refuse_in_capture()) {
    drop_work(work);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  bool host_alone = !on_device(to) && !on_device(from);
  bool now = reading == HOST_NOW || (reading == PAGEABLE_NOW && is_pageable(from));
  if (now && !stream->capture && !host_alone && !on_device(from)) stage(work);
  TRY(enqueue(stream, work));
  return host_alone && !stream->capture ? synchronise(stream) : CUDA_SUCCESS;
}

/* A call of the legacy stream: it waits but where both sides are on a device. */
static CUresult copy_now(struct context *context, struct work *work) {
  struct stream *stream;
  CUresult error = find_stream(CU_STREAM_LEGACY, context, &stream);
  if (!error) error = refuse_in_capture();
  if (error) {
    drop_work(work);
    return error;
  }
  bool within = work->kind == COPY && on_device(work->copy.to.address) &&
                on_device(work->copy.from.address);
  TRY(enqueue(stream, work));
  return within ? CUDA_SUCCESS : synchronise(stream);
}

/* ---- flat copies ---- */
CUresult make_flat(uint64_t to, uint64_t from, size_t size, int how, struct context *context,
                   struct work **work) {
  if (!size) {
    *work = new_work(NOTHING, context, 0);
    return CUDA_SUCCESS;
  }
  bool wrong = !(how & (ANYWHERE | TO_HOST)) && !in_window(to);
  wrong |= !(how & (ANYWHERE | FROM_HOST)) && !in_window(from);
  if (wrong) {
    report("a copy of %llu bytes is given an address that is not the device's",
           (unsigned long long)size);
    return CUDA_ERROR_INVALID_VALUE;
  }
  struct side target = {to, size, 1}, source = {from, size, 1};
  TRY(check_side(target, size, 1, 1));
  TRY(check_side(source, size, 1, 1));
  *work = new_copy(context, target, source, size, 1, 1);
  return CUDA_SUCCESS;
}

#define FLAT_NOW(to, from, size, how)                                          \
  ENTER_CONTEXT(context);                                                      \
  struct work *work;                                                           \
  TRY(make_flat((uint64_t)(to), (uint64_t)(from), size, how, context, &work)); \
  return copy_now(context, work)

#define FLAT_ASYNC(to, from, size, how, handle)                                        \
  ENTER_CONTEXT(context);                                                              \
  struct stream *stream;                                                               \
  struct work *work;                                                                   \
  TRY(find_stream(handle, context, &stream));                                          \
  TRY(make_flat((uint64_t)(to), (uint64_t)(from), size, how, stream->context, &work)); \
  return copy_async(stream, work, PAGEABLE_NOW)

CUresult CUDAAPI cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t size) {
  FLAT_NOW(to, from, size, ANYWHERE);
}
CUresult CUDAAPI cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t size) {
  FLAT_NOW(to, from, size, FROM_HOST);
}
CUresult CUDAAPI cuMemcpyDtoH(void *to, CUdeviceptr from, size_t size) {
  FLAT_NOW(to, from, size, TO_HOST);
}
CUresult CUDAAPI cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t size) {
  FLAT_NOW(to, from, size, 0);
}
CUresult CUDAAPI cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t size,
                               CUstream stream_handle) {
  FLAT_ASYNC(to, from, size, ANYWHERE, stream_handle);
}
CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t size,
                                   CUstream stream_handle) {
  FLAT_ASYNC(to, from, size, FROM_HOST, stream_handle);
}
CUresult CUDAAPI cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t size,
                                   CUstream stream_handle) {
  FLAT_ASYNC(to, from, size, TO_HOST, stream_handle);
}
CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size,
                                   CUstream stream_handle) {
  FLAT_ASYNC(to, from, size, 0, stream_handle);
}

/* Between devices, through the host where they do not reach each other. */
CUresult CUDAAPI cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                              CUcontext from_context, size_t size) {
  if (!to_context || !from_context) return CUDA_ERROR_INVALID_CONTEXT;
  FLAT_NOW(to, from, size, 0);
}
CUresult CUDAAPI cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                                   CUcontext from_context, size_t size,
                                   CUstream stream_handle) {
  if (!to_context || !from_context) return CUDA_ERROR_INVALID_CONTEXT;
  FLAT_ASYNC(to, from, size, 0, stream_handle);
}

/* ---- copies of rows and slices ---- */
CUresult CUDAAPI cuMemcpy3D(const CUDA_MEMCPY3D *params) {
  ENTER_CONTEXT(context);
  struct work *work;
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  TRY(make_copy(params, context, &work));
  return copy_now(context, work);
}

CUresult CUDAAPI cuMemcpy3DAsync(const CUDA_MEMCPY3D *params, CUstream handle) {
  ENTER_CONTEXT(context);
  struct stream *stream;
  struct work *work;
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  TRY(find_stream(handle, context, &stream));
  TRY(make_copy(params, stream->context, &work));
  return copy_async(stream, work, PAGEABLE_NOW);
}

static CUDA_MEMCPY3D slice_of(const CUDA_MEMCPY2D *flat) {
  return (CUDA_MEMCPY3D){
      .srcXInBytes = flat->srcXInBytes,
      .srcY = flat->srcY,
      .srcMemoryType = flat->srcMemoryType,
      .srcHost = flat->srcHost,
      .srcDevice = flat->srcDevice,
      .srcPitch = flat->srcPitch,
      .dstXInBytes = flat->dstXInBytes,
      .dstY = flat->dstY,
      .dstMemoryType = flat->dstMemoryType,
      .dstHost = flat->dstHost,
      .dstDevice = flat->dstDevice,
      .dstPitch = flat->dstPitch,
      .WidthInBytes = flat->WidthInBytes,
      .Height = flat->Height,
      .Depth = 1,
  };
}

CUresult CUDAAPI cuMemcpy2D(const CUDA_MEMCPY2D *params) {
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  CUDA_MEMCPY3D slice = slice_of(params);
  return cuMemcpy3D(&slice);
}

CUresult CUDAAPI cuMemcpy2DUnaligned(const CUDA_MEMCPY2D *params) {
  return cuMemcpy2D(params);
}

CUresult CUDAAPI cuMemcpy2DAsync(const CUDA_MEMCPY2D *params, CUstream stream) {
  if (!params) return CUDA_ERROR_INVALID_VALUE;
  CUDA_MEMCPY3D slice = slice_of(params);
  return cuMemcpy3DAsync(&slice, stream);
}
