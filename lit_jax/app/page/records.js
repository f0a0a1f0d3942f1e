// The results as a table of Darwin Core terms (https://dwc.tdwg.org/terms/), as lit_jax/prediction/formats.py writes
// it, with time and place behind.

import { RANKS, SPECIES } from "./answers.js";
import { binomial } from "./names.js";

export const COLUMNS = [
  "associatedMedia", "scientificName", "taxonRank", "vernacularName", ...RANKS, "specificEpithet", "identifiedBy",
  "identificationVerificationStatus", "identificationRemarks", "eventDate", "decimalLatitude", "decimalLongitude",
  "geodeticDatum", "coordinateUncertaintyInMeters",
];

const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
const line = (cells) => `${cells.map((value) => cell(String(value ?? ""))).join(",")}\n`;

/**
 * The table. Its first line names the columns; what made it, and what its confidence is worth, is in every row.
 * @param photos each with name, error or answer (rank, name, commonName, ranks, confidence), date and place
 * @param about madeBy, model and note
 */
export function darwinCore(photos, about) {
  return line(COLUMNS) + photos.map((photo) => line(COLUMNS.map((column) => row(photo, about)[column]))).join("");
}

/** The epithet of a species, without a hybrid sign, a doubt or a subgenus before it; empty where none is named. */
function epithet(name, genus) {
  const [first, ...others] = name.split(/\s+/);
  const species = first === genus ? binomial(name) : "";
  return (species && others.find((word) => binomial(`${first} ${word}`) === species)?.replace(/^×+/, "")) || "";
}

/** The same file by a name that a spreadsheet does not take for a formula; as lit_jax/prediction/found.py. */
const asPath = (name) => (/^[=+\-@\t\r\n＝＋－＠]/.test(name) ? `./${name}` : name);

function row({ name, error, answer, date, place }, about) {
  const found = {
    associatedMedia: asPath(name), identifiedBy: `${about.madeBy}, model ${about.model}`, eventDate: date ?? "",
    ...(place ? {
      decimalLatitude: place.latitude.toFixed(6), decimalLongitude: place.longitude.toFixed(6),
      geodeticDatum: "WGS84",
      coordinateUncertaintyInMeters: place.accuracy ? Math.ceil(place.accuracy) : "",
    } : {}),
  };
  if (error) return { ...found, identificationRemarks: `photo could not be read: ${error}` };
  const remarks = `confidence ${answer.confidence.toFixed(4)}; ${about.note}`;
  Object.assign(found, answer.ranks, { identificationVerificationStatus: "unverified" });
  if (!answer.rank) return { ...found, identificationRemarks: `not sure at any rank; ${remarks}` };
  Object.assign(found, { identificationRemarks: remarks, scientificName: answer.name, taxonRank: answer.rank });
  found.vernacularName = answer.commonName;
  if (RANKS.includes(answer.rank)) found[answer.rank] = answer.name;
  if (answer.rank === SPECIES) found.specificEpithet = epithet(answer.name, found.genus);
  return found;
}
