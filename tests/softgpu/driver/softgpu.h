/* What the driver half of the software GPU and its Python half (tests/softgpu/engine.py) say
 * to each other. All of these are exported by libcuda.so.1 beside the driver's own functions.
 *
 * build.py compiles every *.c of this folder, those that only the engine needs, too.
 */
#ifndef SOFTGPU_H
#define SOFTGPU_H

#include <stddef.h>
#include <stdint.h>

#define SOFTGPU_API __attribute__((visibility("default")))

/* ---- memory ----
 * All memory that a kernel may touch lies in one window of addresses. It is cut into equal
 * shares: one for each device, by number, and the last for pinned host memory, which every
 * device sees. Each byte of the window has a byte of shadow, at shadow[address - base]. A
 * launch reads shadow to know what it may touch, and writes WRITTEN where it stores;
 * everything else is kept by the driver.
 */
enum softgpu_state {
  SOFTGPU_UNALLOCATED = 0,
  SOFTGPU_ALLOCATED = 1, /* but never written */
  SOFTGPU_WRITTEN = 2,
  SOFTGPU_FREED = 3, /* old freed memory may go back to UNALLOCATED */
};
SOFTGPU_API void softgpu_window(uint64_t *base, uint64_t *size, uint8_t **shadow);

/* The share of a device, or of pinned host memory if device is -1. */
SOFTGPU_API void softgpu_share(int device, uint64_t *start, uint64_t *size);

/* Say in words what lies at an address: the allocation around it, the one that was there, or
 * the nearest one. Returns the length; `text` gets at most room bytes with a zero at their
 * end. */
SOFTGPU_API size_t softgpu_describe(uint64_t address, char *text, size_t room);

/* ---- code ----
 * `load` is called once for each module and device, before the first launch there. It returns
 * a CUresult and, before it returns, tells by the functions below what the module holds.
 * `launch` runs one kernel to its end; it is called without any lock held, by whatever thread
 * waits for the stream, so two launches may run at once. Its params point to copies made when
 * the launch was enqueued. `most` is the dynamic shared memory that the kernel was allowed.
 * What launch returns other than 0 is a fault of the context: every later call returns it,
 * until softgpu_reset.
 */
typedef int (*softgpu_load)(uint64_t module, const char *text, int device);
typedef int (*softgpu_unload)(uint64_t module);
typedef int (*softgpu_launch)(uint64_t module, const char *entry, int device,
                              const uint32_t *dims, uint32_t shared, void **params,
                              uint32_t most);
SOFTGPU_API void softgpu_register(softgpu_load load, softgpu_unload unload,
                                  softgpu_launch launch);

/* An entry of the module and its parameters: size and alignment of each in bytes. For every
 * entry. */
SOFTGPU_API void softgpu_parameters(uint64_t module, const char *entry, uint32_t count,
                                    const uint32_t *sizes, const uint32_t *alignments);

/* An attribute of an entry, by CUfunction_attribute: 0 the most threads a block (.maxntid), 1
 * static shared bytes, 2 constant bytes, 3 local bytes a thread, 4 registers. What is not told
 * is 1024 for the first and 0 for the others. */
SOFTGPU_API void softgpu_attribute(uint64_t module, const char *entry, int attribute,
                                   int value);

/* Memory for a .global or .const variable of the module on a device: zeroed, WRITTEN, freed
 * with the module; cuModuleGetGlobal finds it by name. Returns its address, or 0 where memory
 * is exhausted. */
SOFTGPU_API uint64_t softgpu_global(uint64_t module, int device, const char *name,
                                    uint64_t size);

/* ---- what went wrong ----
 * A report is a text for the user, kept until it is read, and written to stderr unless
 * SOFTGPU_QUIET=1. softgpu_reports returns the bytes of all reports, each ended by a zero; if
 * they fit into room they are copied and forgotten. softgpu_reset forgets faults of contexts
 * and reports, empties the queues and ends what is being captured.
 */
SOFTGPU_API void softgpu_report(const char *text);
SOFTGPU_API size_t softgpu_reports(char *text, size_t room);
SOFTGPU_API void softgpu_reset(void);

/* How often a driver function was called since the start, by its name without version. */
SOFTGPU_API unsigned long long softgpu_count(const char *name);

/* Set an option, before cuInit, as the environment variable of that name would; NULL: unset. */
SOFTGPU_API void softgpu_option(const char *name, const char *value);

#endif
