//! Small programs as services have them, each with an invariant that its author expects.

pub mod hall;
pub mod shop;

pub mod right {
    pub mod both_accounts_locked;
    pub mod check_and_act_in_one_lock;
    pub mod counter_in_the_store;
    pub mod fenced_purchase;
    pub mod finished_after_loss;
    pub mod guard_until_the_end;
    pub mod job_that_notes_its_day;
    pub mod joined_work;
    pub mod payment_with_idempotency_key;
    pub mod readers_and_writers;
}

pub mod wrong {
    pub mod cached_before_lock;
    pub mod check_and_act_in_two_locks;
    pub mod counter_in_process_memory;
    pub mod fence_in_wrong_row;
    pub mod goes_on_when_busy;
    pub mod guard_dropped_early;
    pub mod job_without_min_hold;
    pub mod kept_after_loss;
    pub mod key_lacks_tenant;
    pub mod key_spelled_differently;
    pub mod locks_in_crossed_order;
    pub mod payment_repeated_after_loss;
    pub mod permits_for_exclusion;
    pub mod read_not_fenced;
    pub mod shared_lock_for_write;
    pub mod skipped_though_needed;
    pub mod stock_read_before_lock;
    pub mod ttl_shorter_than_work;
    pub mod two_backends;
    pub mod unlocked_before_commit;
    pub mod work_spawned_out_of_lock;
    pub mod write_without_token;
}
