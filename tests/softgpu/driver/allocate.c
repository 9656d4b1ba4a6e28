/* Memory that the host asks for: plain memory of a context, and by streams from pools. */
#include "driver.h"

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
  leave_pool(block->pool, block->size);
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
  bool of_graph = stream->capture;
  if (!address || !size) return CUDA_ERROR_INVALID_VALUE;
  if (!of_graph && !enter_pool(pool, size)) return CUDA_ERROR_OUT_OF_MEMORY;
  struct block *block =
      reserve(pool->device, size, of_graph ? OF_GRAPH : STREAM_ORDERED, stream);
  if (!block) {
    if (!of_graph) leave_pool(pool, size);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  block->context = stream->context;
  if (!of_graph) block->pool = pool;
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
  if (!find_pool(pool)) return CUDA_ERROR_INVALID_VALUE;
  return allocate_async((uint64_t *)address, size, find_pool(pool), stream);
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
  if (stream->capture && block->origin != OF_GRAPH) {
    report("a captured cuMemFreeAsync of 0x%llx, which is no memory of a graph",
           (unsigned long long)address);
    return CUDA_ERROR_INVALID_VALUE;
  }
  struct work *work = new_work(FREE, stream->context, 0);
  work->memory.address = address;
  work->memory.size = block->size;
  work->memory.id = block->id;
  work->memory.of_graph = block->origin == OF_GRAPH; /* its address stays the graph's */
  if (!work->memory.of_graph) {
    leave_pool(block->pool, block->size);
    host_free(block, stream);
  }
  return enqueue(stream, work);
}
