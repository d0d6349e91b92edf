-- The spine: which user saw which product in which session, when, with or without the voucher
-- (grp), and whether it was bought (outcome). The features are joined to it as they were known then.
--
-- Values come from the command line and are bound, never pasted; the end is exclusive:
--   --context-params "start_date=2025-01-01,end_date=2025-02-01"
SELECT
    user_id,
    product_id,
    session_id,
    event_timestamp,
    grp,
    outcome
FROM sessions
WHERE event_timestamp >= CAST(:start_date AS TIMESTAMP)
  AND event_timestamp < CAST(:end_date AS TIMESTAMP)
