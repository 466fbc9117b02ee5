-- Prelude: the times of a queue, in microseconds. The first waiter shows a sign of life every `HEARTBEAT`, and is absent
-- after `ABSENT` without one; its place is kept for `KEPT`. The next one looks every `LOOK`, those behind it less often.
local ABSENT, KEPT, HEARTBEAT, LOOK, LONGEST_LOOK = 400000, 10000000, 100000, 200000, 1000000
