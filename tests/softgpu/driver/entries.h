/* The table of the driver's functions, which build.py writes from the headers of CUDA at hand.
 *
 * entries.c of the build defines every function that cuda.h declares, weakly: what is written
 * in this folder takes its place, and the rest answers that it is not implemented.
 */
#ifndef ENTRIES_H
#define ENTRIES_H

#include <stddef.h>

struct entry {
  const char *name; /* without its version */
  int since;        /* the release of CUDA that brought this version: 12020 */
  void *function;
};
struct error {
  int code;
  const char *name;
};
extern const struct entry softgpu_entries[];
extern const struct error softgpu_errors[];
extern const size_t softgpu_entry_count, softgpu_error_count;

#endif
