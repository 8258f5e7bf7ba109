/**
 * schedules: what fires when.
 *
 * Model: a schedule is a row with a rule and the planned time of its next tick. The leader of role `scheduler` sleeps until
 * the first of them is due, works out which ticks fire (`plan.ts`) and fires them in one statement that carries its term:
 * each tick is a row, unique by schedule and planned time, and comes into being together with its job. When ticks fall is
 * decided by `calendar.ts` and `zone.ts` alone: a skipped local time comes once, at the first moment after the gap; a
 * repeated one once, the first time. Code defines schedules, and of several versions of the code the youngest that runs
 * counts (`schedule_reconcile`); others are made at run time and live in the table alone.
 *
 * When things fail: leadership decides who works, never what is true. A leader that is killed, stopped or doubled fires
 * nothing twice, since the tick stands already or the term is refused; what was due meanwhile fires when another leads, or
 * is missed after 15 s and falls to its policy. A schedule whose job cannot be made is tried again, and keeps no other.
 */
export { createDefineCron, type Cron, type DefineCron, ScheduleRegistry } from './define.js'
export {
  type ByWhom,
  type Crons,
  type PastTick,
  type Schedule,
  type ScheduleEvent,
  type Triggered,
} from './face.js'
export { SchedulesService } from './service.js'
export { openCrons } from './stored.js'
export type { CronOptions, JobScheduleOptions, Missed, ScheduleOptions, ScheduleRule, Tick } from './spec.js'
