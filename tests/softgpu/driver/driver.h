/* What the files of the driver share: its objects, and what each file offers the others.
 *
 * One lock guards everything. It is given back around whatever may call the driver or wait for
 * Python (launches, host functions), and never held while waiting for Python's own lock.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cuda.h>
#include "softgpu.h"

enum { MOST_DEVICES = 8, QUERIES_UNTIL_PROGRESS = 3, LONGEST_QUEUE = 1024 };

/* ---- calls (calls.c) ---- */
struct call { /* one for each driver function that was called */
  const char *name;
  unsigned long long count;
  struct call *next;
};
struct guard { /* lives as long as the call; its end gives the lock back */
  CUresult refused;
};
struct guard enter(struct call *call);
void leave(struct guard *guard);

/* The first line of a driver function: counts it, takes the lock, refuses before cuInit. */
#define ENTER                                                             \
  static struct call this_call = {.name = __func__};                      \
  struct guard guard __attribute__((cleanup(leave))) = enter(&this_call); \
  if (guard.refused) return guard.refused

/* The same for one that needs a context: it must be current, alive and without a fault. */
#define ENTER_CONTEXT(context)                 \
  ENTER;                                       \
  struct context *context = current_context(); \
  (void)context;                               \
  if ((guard.refused = check_context(context))) return guard.refused

/* Leave the function with what `code` returns, if that is an error. */
#define TRY(code)            \
  do {                       \
    CUresult tried = (code); \
    if (tried) return tried; \
  } while (0)

void take_lock(void);
void release_lock(void);
void wait_for_progress(void); /* gives the lock and Python's back meanwhile */
void tell_progress(void);
bool python_lives(void); /* or there is none: then nobody's callback needs it */
bool begin_callback(void); /* gives the lock back; false: Python has ended, call nobody */
bool python_run(const char *text); /* without the lock; false: no Python, or an error */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));
CUresult not_implemented(const char *name); /* what generated functions return */
extern __thread bool inside_host_function;  /* where the driver may not be called */

/* ---- options (options.c) ---- */
struct options {
  int driver, capability, devices;
  uint64_t memory, window; /* bytes of a device; addresses of all */
  bool recycle, skip, eager, blocking;
};
extern struct options options;
extern bool initialised;
const char *option(const char *name); /* its value, or NULL */
bool flag(const char *name);          /* set and neither empty nor 0 */

/* ---- handles (handles.c): which pointers are objects, and of what kind ---- */
enum kind { CONTEXT = 1, STREAM, EVENT, POOL, MODULE, KERNEL, GRAPH, NODE, EXEC, USER_OBJECT };
void add_handle(const void *handle, enum kind kind);
void drop_handle(const void *handle);
bool is_handle(const void *handle, enum kind kind);

/* ---- the window and its shadow (shadow.c) ---- */
extern uint64_t window_base, window_size;
extern uint8_t *shadow;
bool map_window(void);
bool in_window(uint64_t address);
int share_of(uint64_t address); /* device, -1 for the host's share, -2 outside the window */
void mark(uint64_t start, uint64_t size, enum softgpu_state state);
void make_fresh(uint64_t start, uint64_t size); /* ALLOCATED, 0xA5 */
/* The first byte of the range whose shadow is `one` or `other`, or UINT64_MAX. */
uint64_t find_state(uint64_t start, uint64_t size, enum softgpu_state one,
                    enum softgpu_state other);
void drop_pages(uint64_t start, uint64_t stop); /* give whole pages back to the system */

/* ---- allocations (memory.c) ---- */
enum origin { PLAIN, STREAM_ORDERED, HOST, OF_GRAPH, OF_MODULE };
struct block { /* an allocation; what the host has freed stays until a stream frees it */
  uint64_t start, size, room; /* room: up to the red zone */
  enum origin origin;
  int device;     /* -1: pinned host memory */
  bool leaving;   /* freed by the host, but not yet by its stream */
  unsigned flags; /* of pinned memory */
  struct pool *pool;
  struct context *context;
  unsigned long long id;
};
struct block *block_at(uint64_t address); /* what the host still has at it, or NULL */
/* A new block; `stream` may reuse what it has freed itself. NULL: memory is exhausted. */
struct block *reserve(int device, uint64_t size, enum origin origin, const void *stream);
/* The host frees a block: it no longer counts. Its end comes when `stream` gets to it. */
void host_free(struct block *block, const void *stream);
void end_block(uint64_t start, uint64_t size, unsigned long long id);
void free_all_of(struct context *context);
uint64_t used_memory(int device);
bool within_block(uint64_t start, uint64_t size); /* the range is part of one the host has */

/* Narrow a range of addresses to what no block has around an address inside. */
void clip_to_unused(uint64_t inside, uint64_t *low, uint64_t *high);

/* ---- what was freed (freed.c) ---- */
void note_freed(uint64_t start, uint64_t size);                /* it becomes FREED */
int describe_freed(uint64_t address, char *text, size_t room); /* 0: it is none of these */

/* ---- pools (pool.c) ---- */
struct pool {
  int device; /* -1: of pinned host memory */
  uint64_t used, used_high, reserved, reserved_high, threshold, most;
  int reuse[4]; /* three policies, by attribute */
  struct pool *next;
};
struct pool *find_pool(CUmemoryPool handle);
struct pool *current_pool(int device);
bool enter_pool(struct pool *pool, size_t size); /* false: it is full */
void leave_pool(struct pool *pool, size_t size);
void release_pools(void); /* what they hold beyond their threshold, as every wait does */

bool is_pinned(uint64_t address); /* (host.c) pinned or registered host memory */

/* ---- contexts (context.c) ---- */
struct context {
  int device;
  bool primary, alive;
  unsigned flags, uses; /* uses: of a primary context */
  unsigned long long id;
  CUresult fault; /* sticky */
  struct stream *legacy, *streams;
  size_t limits[16];
  struct context *next;
};
extern struct context *contexts;
struct context *current_context(void);
CUresult check_context(struct context *context);
struct context *context_of(CUcontext handle); /* NULL: not a live one */
struct context *primary_context(int device);
CUresult check_device(CUdevice device);
int device_attribute(CUdevice_attribute attribute, int device); /* (device.c) */

/* ---- work (work.c): what a device does; shared by queues and graphs, never changed ---- */
enum work_kind {
  LAUNCH, COPY, SET, HOST_CALL, ALLOCATE, FREE, RECORD, WAIT, PROGRAM, NOTHING,
};
struct side { /* one side of a copy: rows of `pitch` bytes, slices of `rows` rows */
  uint64_t address;
  size_t pitch, rows;
};
struct work {
  enum work_kind kind;
  int references;
  struct context *context;
  union {
    struct {
      struct kernel *kernel;
      uint32_t dims[6], shared, count;
      void **params; /* in this very block of memory */
    } launch;
    struct {
      struct side to, from;
      size_t width, height, depth;
      void *staged; /* what was in pageable memory at the call */
    } copy;
    struct {
      uint64_t address;
      size_t pitch, width, height; /* width in elements */
      uint32_t value, element;
    } set;
    struct {
      CUhostFn function;
      CUstreamCallback callback; /* of cuStreamAddCallback, instead */
      CUstream stream;
      void *data;
    } host;
    struct {
      uint64_t address, size;
      unsigned long long id;
      bool of_graph;
    } memory;
    struct event *event; /* RECORD, WAIT */
    struct program *program;
  };
};
struct work *new_work(enum work_kind kind, struct context *context, size_t more);
struct work *keep_work(struct work *work);
void drop_work(struct work *work);
void run_work(struct work *work); /* faults become the context's */

/* ---- streams (stream.c) ---- */
struct point { /* a place in a stream's queue; reached when that many tasks are done */
  struct stream *stream;
  unsigned long long number;
};
struct task {
  struct task *next;
  unsigned long long number;
  struct work *work; /* NULL: only waits */
  size_t wait_count;
  struct point waits[];
};
struct stream {
  struct context *context;
  unsigned flags;
  int priority;
  bool destroyed, busy;
  unsigned long long id, enqueued, done;
  unsigned queries;
  struct task *head, *tail;
  struct point *waits; /* of the next task */
  size_t wait_count, wait_room;
  struct capture *capture;
  struct node **capture_after; /* what the next captured node depends on */
  size_t capture_after_count;
  struct stream *next;
};
CUresult find_stream(CUstream handle, struct context *context, struct stream **stream);
struct stream *new_stream(struct context *context, unsigned flags, int priority);
/* Put work at a stream's end, or into the graph that is captured. Takes over one reference. */
CUresult enqueue(struct stream *stream, struct work *work);
void wait_at_end(struct stream *stream, struct point point); /* the next task waits for it */
void run_until(struct point point);
bool reached(struct point point);
struct point end_of(struct stream *stream);
void run_context(struct context *context);
CUresult synchronise(struct stream *stream); /* run everything; the context's fault */
CUresult refuse_in_capture(void); /* what may not be called while somebody captures */
CUresult refuse_legacy_in_capture(struct context *context);
void forget_tasks(void); /* empty every queue */

/* ---- events (event.c) ---- */
struct event {
  unsigned flags;
  int references;
  struct context *context;
  bool recorded;
  struct point point;
  unsigned queries;
  double seconds;              /* when it was reached */
  unsigned long long captured; /* the capture in which it was recorded, or 0 */
  struct node **after;
  size_t after_count;
};
struct event *keep_event(struct event *event);
void drop_event(struct event *event);
struct event *find_event(CUevent handle);
void record_event(struct event *event, struct stream *stream, struct point point);

/* ---- code (module.c) ---- */
struct kernel {
  struct module *module;
  char *name;
  uint32_t parameter_count;
  uint32_t *sizes, *offsets;
  int attributes[16];
  int most_shared[MOST_DEVICES], carveout[MOST_DEVICES];
  struct kernel *next;
};
struct global {
  char *name;
  int device;
  uint64_t address, size;
  struct global *next;
};
struct module {
  unsigned long long id;
  char *text;
  struct context *context;                                  /* NULL: a library */
  enum { NOT_LOADED, LOADING, LOADED } state[MOST_DEVICES]; /* on each device */
  bool unloaded;
  struct kernel *kernels;
  struct global *globals;
  struct module *next;
};
extern softgpu_launch launch_callback;
CUresult load_on(struct module *module, int device);
CUresult new_module(void **out, const char *code, struct context *context, unsigned count,
                    const CUjit_option *names, void **values);
void unload_module(struct module *module);
void unload_all_of(struct context *context);
struct module *find_module(const void *handle);
struct kernel *kernel_of(struct module *module, const char *name);
CUresult check_code(const char *code, char *why, size_t room); /* (ptx.c) */
struct kernel *find_kernel(const void *handle);

/* ---- launches (launch.c) ---- */
struct shape {
  uint32_t dims[6], shared;
};
CUresult make_launch(struct kernel *kernel, struct context *context, const struct shape *shape,
                     void **params, void **extra, struct work **work);
int registers_fit(const struct kernel *kernel, int device, int threads, size_t shared);

/* ---- copies (copy.c), memsets (memset.c) ---- */
enum reading { PAGEABLE_NOW, HOST_NOW, LATE };     /* when a copy reads memory of the host */
enum { TO_HOST = 1, FROM_HOST = 2, ANYWHERE = 4 }; /* where the caller says that memory lies */
CUresult make_flat(uint64_t to, uint64_t from, size_t size, int how, struct context *context,
                   struct work **work);
CUresult copy_async(struct stream *stream, struct work *work, enum reading reading);
CUresult make_copy(const CUDA_MEMCPY3D *params, struct context *context, struct work **work);
CUresult make_set(const CUDA_MEMSET_NODE_PARAMS *params, struct context *context,
                  struct work **work);
void copy_params(const struct work *work, CUDA_MEMCPY3D *params);

/* ---- graphs: what the others need of graphs.h ---- */
void capture_work(struct stream *stream, struct work *work); /* (capture.c) */
CUresult capture_wait(struct stream *stream, struct event *event);
void capture_record(struct stream *stream, struct event *event);
void invalidate(struct stream *stream);
void forget_captures(void);
void leave_capture(struct stream *stream);  /* it is being destroyed */
void drop_program(struct program *program); /* (program.c) */
void run_program(struct program *program);
void run_ends(void); /* (objects.c) of user objects; gives the lock back meanwhile */

#endif
