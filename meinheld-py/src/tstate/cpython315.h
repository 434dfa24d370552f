/*
 * The thread state of CPython 3.15: as 3.14, but a frame chain ends in a frame of the thread, and the code
 * of one that was parked is instrumented when it comes back.
 */

#define BOTTOM_OF_THREAD(ts) ((ts)->base_frame)
#define INSTRUMENTATION_MEMBERS uintptr_t instrumentation;
#define EXCHANGE_INSTRUMENTATION(ts, own) exchange_instrumentation(ts, &(own)->instrumentation)

#include "internal/pycore_interpframe.h"
#include "instrumentation.h"
#include "cpython314.h"
