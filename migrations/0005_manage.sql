-- Looking at jobs and changing them, in a large history.
-- requires-code: 2

-- All that did not complete: what people list, and what a retry looks through. Few among many.
drop index job_history_failed;
create index job_history_ended on job_history (id) where state in (6, 7, 8);
-- The children of a job. Jobs without a parent cost it nothing.
create index job_history_parent on job_history (parent, id) where parent is not null;
