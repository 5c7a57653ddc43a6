/* The counters of alerts in /metrics. */
#include "worker/watch/alert.h"
#include "worker/watch/exposition.h"

static void tell_decided(const struct alert_counts *c, struct dr_buf *b)
{
    static const char name[] = "drworker_alerts_decided_total";
    exposition_family(b, name, "counter",
                      "Alerts that this worker raised, cleared, repeated, or told again.");
    exposition_uint(b, name, c->raised, "as", "raised", NULL);
    exposition_uint(b, name, c->resolved, "as", "resolved", NULL);
    exposition_uint(b, name, c->repeated, "as", "repeated", NULL);
    exposition_uint(b, name, c->reminded, "as", "reminded", NULL);
    exposition_family(b, "drworker_alert_notices_taken_over_total", "counter",
                      "Notices of workers that died.");
    exposition_uint(b, "drworker_alert_notices_taken_over_total", c->taken_over, NULL);
    exposition_family(b, "drworker_alert_notices_dropped_total", "counter",
                      "Notices that there was no room for.");
    exposition_uint(b, "drworker_alert_notices_dropped_total", c->dropped, NULL);
}

static void tell_tries(const struct alert_counts *c, struct dr_buf *b)
{
    static const char name[] = "drworker_alert_deliveries_total";
    exposition_family(b, name, "counter",
                      "Tries to deliver a notice; given_up: the last one failed, too.");
    for (unsigned i = 0; i < 2; i++) {
        const struct alert_target_counts *t = &c->target[i];
        exposition_uint(b, name, t->sent, "target", t->name, "outcome", "sent", NULL);
        exposition_uint(b, name, t->failed_tries, "target", t->name, "outcome", "failed", NULL);
        exposition_uint(b, name, t->given_up, "target", t->name, "outcome", "given_up", NULL);
    }
}

void alert_write_metrics(const struct alerts *a, struct dr_buf *b)
{
    struct alert_counts c;
    if (!a)
        return;
    alert_read_counts(a, &c);
    tell_decided(&c, b);
    tell_tries(&c, b);
    exposition_family(b, "drworker_alert_notices_waiting", "gauge",
                      "Notices that this worker has still to deliver.");
    for (unsigned i = 0; i < 2; i++)
        exposition_uint(b, "drworker_alert_notices_waiting", c.target[i].waiting, "target",
                        c.target[i].name, NULL);
}
