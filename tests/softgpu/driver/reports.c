/* Reports of faults: kept until they are read, and written to stderr. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include "driver.h"

static pthread_mutex_t lock =
    PTHREAD_MUTEX_INITIALIZER; /* its own: reports come from everywhere */
static char *reports;
static size_t length;

static void forget(void) {
  free(reports);
  reports = NULL;
  length = 0;
}

void softgpu_report(const char *text) {
  if (!flag("SOFTGPU_QUIET")) fprintf(stderr, "softgpu: %s\n", text);
  size_t size = strlen(text) + 1;
  pthread_mutex_lock(&lock);
  char *longer = realloc(reports, length + size);
  if (longer) {
    reports = longer;
    memcpy(reports + length, text, size);
    length += size;
  }
  pthread_mutex_unlock(&lock);
}

void report(const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  softgpu_report(text);
}

size_t softgpu_reports(char *text, size_t room) {
  pthread_mutex_lock(&lock);
  size_t size = length;
  if (size && size <= room) {
    memcpy(text, reports, size);
    forget();
  }
  pthread_mutex_unlock(&lock);
  return size;
}

void softgpu_reset(void) {
  take_lock();
  forget_captures();
  forget_tasks();
  for (struct context *context = contexts; context; context = context->next)
    context->fault = CUDA_SUCCESS;
  release_lock();
  pthread_mutex_lock(&lock);
  forget();
  pthread_mutex_unlock(&lock);
}
