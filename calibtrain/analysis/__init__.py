"""What text that a model generates shows of it: along a text, by alarms, and over many texts."""
