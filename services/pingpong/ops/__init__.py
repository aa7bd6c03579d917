"""What both services share: settings, logs; nothing here knows of sessions."""
