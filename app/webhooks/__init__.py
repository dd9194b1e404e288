"""/v1/webhooks: who is told what happens here."""
