/* Allocations: where they lie, and where they lay.
 *
 * Addresses of a share are handed out in order and begin anew at its end, so freed memory is
 * not used again for as long as possible and whoever still uses it is found. SOFTGPU_RECYCLE=1
 * hands out what was freed last, as a real pool does.
 */
#include <stdio.h>
#include "driver.h"

enum { ALIGNMENT = 256, RED_ZONE = 256, GRAIN = 512 };

static struct block **blocks; /* by address */
static size_t count, room;
static uint64_t used[MOST_DEVICES], heads[MOST_DEVICES + 1];
static unsigned long long next_id = 1;

static struct spare { /* what SOFTGPU_RECYCLE may hand out, newest last */
  uint64_t start, room;
  int device;
  const void *stream; /* until its free was reached, for this stream alone */
  unsigned long long id;
} *spares;
static size_t spare_count, spare_room;

/* The number of blocks that start at or before an address. */
static size_t blocks_before(uint64_t address) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (blocks[middle]->start <= address) low = middle + 1;
    else high = middle;
  }
  return low;
}

static struct block *any_block_at(uint64_t address) {
  size_t number = blocks_before(address);
  struct block *block = number ? blocks[number - 1] : NULL;
  return block && address - block->start < block->size ? block : NULL;
}

struct block *block_at(uint64_t address) {
  struct block *block = any_block_at(address);
  return block && !block->leaving ? block : NULL;
}

bool within_block(uint64_t start, uint64_t size) {
  struct block *block = block_at(start);
  return block && size <= block->start + block->size - start;
}

uint64_t used_memory(int device) { return used[device]; }

static uint64_t rounded(uint64_t size, uint64_t grain) {
  return (size + grain - 1) / grain * grain;
}

static void insert(struct block *block) {
  if (count == room) {
    room = room ? 2 * room : 256;
    blocks = realloc(blocks, room * sizeof *blocks);
  }
  size_t at = blocks_before(block->start);
  memmove(blocks + at + 1, blocks + at, (count - at) * sizeof *blocks);
  blocks[at] = block;
  count++;
}

static void erase(struct block *block) {
  size_t at = blocks_before(block->start) - 1;
  memmove(blocks + at, blocks + at + 1, (count - at - 1) * sizeof *blocks);
  count--;
  free(block);
}

/* The next free place of a share, from where the last one ended; 0 if there is none. */
static uint64_t place(int device, uint64_t size) {
  uint64_t start, share, *head = &heads[device < 0 ? options.devices : device];
  softgpu_share(device, &start, &share);
  uint64_t at = *head ? *head : start + RED_ZONE, need = rounded(size, ALIGNMENT) + RED_ZONE;
  for (bool again = false;;) {
    size_t next = blocks_before(at);
    struct block *before = next ? blocks[next - 1] : NULL;
    if (before && before->start + before->room + RED_ZONE > at)
      at = before->start + before->room + RED_ZONE;
    uint64_t stop = next < count && blocks[next]->start < start + share ? blocks[next]->start
                                                                        : start + share;
    if (at + need <= stop) {
      *head = at + need;
      return at;
    }
    if (stop < start + share) at = stop;
    else if (again) return 0;
    else at = start + RED_ZONE, again = true;
  }
}

/* What was freed last and is large enough, but not twice as large. */
static uint64_t recycled(int device, uint64_t size, const void *stream, uint64_t *extent) {
  for (size_t at = spare_count; at-- > 0;) {
    struct spare spare = spares[at];
    bool fits = size <= spare.room && spare.room < 2 * rounded(size, ALIGNMENT);
    if (spare.device != device || !fits || (spare.stream && spare.stream != stream)) continue;
    memmove(spares + at, spares + at + 1, (--spare_count - at) * sizeof *spares);
    struct block *old = any_block_at(spare.start);
    if (old) erase(old); /* its free is still in this stream's queue, before whatever comes */
    *extent = spare.room;
    return spare.start;
  }
  return 0;
}

static void add_spare(const struct block *block, const void *stream) {
  if (spare_count == spare_room) {
    spare_room = spare_room ? 2 * spare_room : 64;
    spares = realloc(spares, spare_room * sizeof *spares);
  }
  spares[spare_count++] =
      (struct spare){block->start, block->room, block->device, stream, block->id};
}

struct block *reserve(int device, uint64_t size, enum origin origin, const void *stream) {
  uint64_t extent = rounded(size, ALIGNMENT);
  if (size > window_size) return NULL;
  if (device >= 0 && used[device] + rounded(size, GRAIN) > options.memory) return NULL;
  uint64_t start = options.recycle ? recycled(device, size, stream, &extent) : 0;
  if (!start) start = place(device, size);
  if (!start) return NULL;
  struct block *block = malloc(sizeof *block);
  *block = (struct block){.start = start,
                          .size = size,
                          .room = extent,
                          .origin = origin,
                          .device = device,
                          .id = next_id++};
  insert(block);
  if (device >= 0) used[device] += rounded(size, GRAIN);
  return block;
}

void host_free(struct block *block, const void *stream) {
  block->leaving = true;
  if (block->device >= 0) used[block->device] -= rounded(block->size, GRAIN);
  if (options.recycle && block->origin != OF_GRAPH) add_spare(block, stream);
}

void clip_to_unused(uint64_t inside, uint64_t *low, uint64_t *high) {
  size_t next = blocks_before(inside);
  struct block *before = next ? blocks[next - 1] : NULL;
  if (before && before->start + before->room > *low) *low = before->start + before->room;
  if (next < count && blocks[next]->start < *high) *high = blocks[next]->start;
}

void end_block(uint64_t start, uint64_t size, unsigned long long id) {
  struct block *block = any_block_at(start);
  if (block && block->id == id && block->leaving) erase(block);
  for (size_t at = 0; at < spare_count; at++)
    if (spares[at].id == id) spares[at].stream = NULL;
  if (!options.skip) note_freed(start, size); /* else nobody touches memory */
}

void free_all_of(struct context *context) {
  for (size_t at = count; at-- > 0;) {
    struct block *block = blocks[at];
    if (block->context != context || block->leaving) continue;
    leave_pool(block->pool, block->size);
    host_free(block, NULL);
    end_block(block->start, block->size, block->id);
    if (at > count) at = count;
  }
}

/* ---- in words ---- */
static const char *whose(const struct block *block) {
  static const char *const NAMES[] = {"allocation", "stream-ordered allocation",
                                      "pinned allocation", "allocation of a graph",
                                      "variable of a module"};
  return NAMES[block->origin];
}

static int describe_block(uint64_t address, const struct block *block, char *text,
                          size_t size) {
  unsigned long long at = address - block->start, bytes = block->size;
  if (at >= bytes && address >= block->start)
    return snprintf(text, size, "%llu bytes behind the end of the %s %llu of %llu bytes",
                    at - bytes, whose(block), block->id, bytes);
  if (address < block->start)
    return snprintf(text, size, "%llu bytes before the %s %llu of %llu bytes",
                    (unsigned long long)(block->start - address), whose(block), block->id,
                    bytes);
  uint8_t state = shadow[address - window_base];
  const char *how = state == SOFTGPU_UNALLOCATED ? ", which its stream has not reached yet"
                    : block->leaving             ? ", which is being freed"
                    : state == SOFTGPU_FREED ? ", which was freed and not allocated again yet"
                                             : "";
  return snprintf(text, size, "byte %llu of the %s %llu of %llu bytes%s", at, whose(block),
                  block->id, bytes, how);
}

size_t softgpu_describe(uint64_t address, char *text, size_t size) {
  take_lock();
  size_t number = blocks_before(address);
  struct block *before = number ? blocks[number - 1] : NULL;
  struct block *after = number < count ? blocks[number] : NULL;
  bool inside = before && address - before->start < before->size;
  int length = inside ? 0 : describe_freed(address, text, size);
  if (!length && before && after && !inside) {
    uint64_t behind = address - before->start - before->size;
    if (after->start - address < behind) before = after;
  }
  if (!before) before = after;
  if (!length && before) length = describe_block(address, before, text, size);
  if (!length) length = snprintf(text, size, "no allocation is near");
  release_lock();
  return (size_t)length;
}
