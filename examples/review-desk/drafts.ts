// What the fake platform asks humans about: answers of a support assistant, each with a reason for
// a second look. Fed in this order, over and over.

import type { Draft } from './commands.js'

export const DRAFTS: readonly Omit<Draft, 'id' | 'at'>[] = [
  {
    topic: 'Refund after 45 days',
    customer: 'Marta Lindqvist',
    channel: 'Email',
    question: 'I bought the standing desk six weeks ago and the motor started to grind last week. I would rather ' +
      'have my money back than a third repair. Is that possible?',
    answer: 'Hello Marta,\n\nI am sorry about the motor. Our 30-day return period is over, but a fault that comes ' +
      'back after two repairs entitles you to a full refund. I have prepared one for 489.00 EUR. A carrier collects ' +
      'the desk; you do not need the original packaging.\n\nShall I book the collection for Thursday?',
    confidence: 0.81,
    flags: ['Promises a refund', 'Amount over 250']
  },
  {
    topic: 'Two medicines together',
    customer: 'J. Okafor',
    channel: 'Chat',
    question: 'Can my father take the allergy tablets you sent together with his blood pressure medicine?',
    answer: 'The tablets contain cetirizine. It has no known interaction with most medicines against high blood ' +
      'pressure, but that depends on which one your father takes and on his kidneys. Please ask his pharmacist or ' +
      'doctor before the first tablet, and tell them both names.\n\nI cannot decide this from here.',
    confidence: 0.64,
    flags: ['Health']
  },
  {
    topic: 'Invoice with the wrong VAT number',
    customer: 'Brandt & Söhne GmbH',
    channel: 'Email',
    question: 'Invoice 2026-1187 shows our old VAT number. Our accountant needs a corrected one before the end of ' +
      'the month.',
    answer: 'Hello,\n\nthank you for telling us. I have cancelled invoice 2026-1187 and issued 2026-1304 with the ' +
      'VAT number DE 811 234 567. Amount and due date are unchanged, and a payment already made is carried ' +
      'over.\n\nThe new invoice is attached.',
    confidence: 0.93,
    flags: ['Changes an invoice']
  },
  {
    topic: 'Delete my account and data',
    customer: 'Priya N.',
    channel: 'Form',
    question: 'Please delete my account and everything you know about me, and confirm it in writing.',
    answer: 'Hello Priya,\n\nyour account is closed as of today. Orders and invoices are kept for ten years, ' +
      'because tax law requires it; everything else is erased within 30 days, backups included. You will get a ' +
      'confirmation by email when that is done.\n\nIf you sign in before then, the erasure is cancelled.',
    confidence: 0.88,
    flags: ['Personal data', 'Legal wording']
  },
  {
    topic: 'Parcel marked as delivered',
    customer: 'Tom Reyes',
    channel: 'Chat',
    question: 'Tracking says delivered yesterday at 14:12, signed by "REYES". Nobody was home. Where is my parcel?',
    answer: 'Thanks for the details, Tom. I have opened a search with the carrier under the number of your parcel; ' +
      'they answer within two working days. If it is not found by Friday, we send the same order again free of ' +
      'charge.\n\nCould you look whether a neighbour or the shop on the corner took it?',
    confidence: 0.9,
    flags: ['Promises a replacement']
  },
  {
    topic: 'Discount for a school',
    customer: 'Collège Saint-Rémy',
    channel: 'Email',
    question: 'We need 28 licences for a class. Do you have prices for schools?',
    answer: 'Hello,\n\nschools pay half: 28 licences are 672.00 EUR a year. With a purchase order you can pay ' +
      'within 60 days. The licences may be used on the devices of the school and of the pupils.\n\nI have attached ' +
      'the offer; it holds until the end of the term.',
    confidence: 0.76,
    flags: ['Quotes a price']
  },
  {
    topic: 'Charger gets hot',
    customer: 'Ewa Kowalczyk',
    channel: 'Chat',
    question: 'The charger gets so hot that I cannot hold it. Is this normal?',
    answer: 'No. Warm is normal, too hot to hold is not. Please unplug it now and do not use it again, also not ' +
      'with another device. I have ordered a new charger for you; it arrives tomorrow. Please keep the old one: our ' +
      'safety team would like to examine it and pays for its way back.',
    confidence: 0.95,
    flags: ['Safety', 'Promises a replacement']
  },
  {
    topic: 'Subscription renewed by surprise',
    customer: 'Daniel Weiss',
    channel: 'Email',
    question: 'You charged me 96 euros for another year. I never agreed to that.',
    answer: 'Hello Daniel,\n\nthe renewal was announced by email on 2 October, 30 days ahead, to the address of ' +
      'your account. I understand that it was missed. Since the new year has only begun, I can cancel it and return ' +
      'the 96.00 EUR to your card; that takes up to five days.\n\nWould you like that?',
    confidence: 0.7,
    flags: ['Promises a refund', 'Complaint']
  },
  {
    topic: 'Access for a colleague who left',
    customer: 'Northwind Care',
    channel: 'Phone note',
    question: 'Our former office manager still has the administrator password. Can you take it away from her?',
    answer: 'I can do that once a second administrator of your organisation confirms it, so that nobody is locked ' +
      'out by a call. I have sent the confirmation to the two other administrators. When one of them agrees, her ' +
      'access ends within a minute and all her sessions are closed.',
    confidence: 0.86,
    flags: ['Access rights']
  },
  {
    topic: 'Data export to another country',
    customer: 'Helvetia Labs AG',
    channel: 'Email',
    question: 'Is any of our customers’ data processed outside of Switzerland and the EU?',
    answer: 'Hello,\n\nstorage and backups are in Frankfurt and Zurich only. Two of our subcontractors may access ' +
      'support tickets from outside the EU; both are listed in annex 3 of your contract, with the clauses that ' +
      'apply to them. You can switch that access off under Settings, Privacy.\n\nShall I send you the annex?',
    confidence: 0.79,
    flags: ['Legal wording', 'Personal data']
  }
]
