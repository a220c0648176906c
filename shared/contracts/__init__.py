"""What is written to the log: events, envelope, subjects. Other services read these too."""
