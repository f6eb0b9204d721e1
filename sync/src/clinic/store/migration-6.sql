create table history (
  box text not null,
  minute integer not null,
  to_process integer not null,
  to_acknowledge integer not null,
  transcription_failed integer not null,
  transcription_calls integer not null,
  diarization_failed integer not null,
  diarization_calls integer not null,
  audio_s real not null,
  after_end_s real not null,
  primary key (box, minute)
) strict, without rowid;
create index history_by_minute on history (minute);
