"""Other APIs whose requests are chats: their bodies become chat bodies, and answers are put into their words."""
