/* Which pointers are objects of the driver: a hash table, so that a bad handle is refused and
 * not read. */
#include "driver.h"

struct entry {
  const void *handle; /* NULL: never used; GONE: was used */
  enum kind kind;
};

static char gone;
#define GONE ((const void *)&gone)
static struct entry *table;
static size_t room, used; /* used: entries that are not NULL, those that are gone too */

static size_t hash(const void *handle) {
  return (size_t)(((uintptr_t)handle >> 4) * 0x9E3779B97F4A7C15ull >> 20) & (room - 1);
}

static struct entry *find(const void *handle) {
  if (!handle || !room) return NULL;
  for (size_t at = hash(handle);; at = (at + 1) & (room - 1)) {
    if (!table[at].handle) return NULL;
    if (table[at].handle == handle) return &table[at];
  }
}

static void insert(const void *handle, enum kind kind) {
  size_t at = hash(handle);
  while (table[at].handle) at = (at + 1) & (room - 1);
  table[at] = (struct entry){handle, kind};
  used++;
}

static void grow(void) {
  struct entry *old = table;
  size_t old_room = room, live = 0;
  for (size_t at = 0; at < old_room; at++) live += old[at].handle && old[at].handle != GONE;
  for (room = 256; room < 4 * live; room *= 2) {
  }
  table = calloc(room, sizeof *table);
  used = 0;
  for (size_t at = 0; at < old_room; at++)
    if (old[at].handle && old[at].handle != GONE) insert(old[at].handle, old[at].kind);
  free(old);
}

void add_handle(const void *handle, enum kind kind) {
  if (2 * (used + 1) > room) grow();
  insert(handle, kind);
}

void drop_handle(const void *handle) {
  struct entry *entry = find(handle);
  if (entry) entry->handle = GONE;
}

bool is_handle(const void *handle, enum kind kind) {
  struct entry *entry = find(handle);
  return entry && entry->kind == kind;
}
